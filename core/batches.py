"""Prompt-and-reply token sequences as right-padded batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from .chat import ChatTokenizer
from .protocols import Message

Row = TypeVar("Row")


@dataclass(frozen=True)
class EncodedReply:
    """A conversation and one reply to it as token ids; the reply ends with an end-of-sequence id."""

    prompt_ids: tuple[int, ...]
    reply_ids: tuple[int, ...]

    @property
    def length(self) -> int:
        """Number of tokens, prompt and reply together."""
        return len(self.prompt_ids) + len(self.reply_ids)


@dataclass(frozen=True)
class ReplyBatch:
    """Right-padded sequences.

    Attributes:
        rows: [B] position of each row in the list that the batch was taken from.
        input_ids: [B, S] token ids.
        attention_mask: [B, S] 1 where there is a token.
        predicts_reply: [B, S] True at the positions whose *next* token belongs to the reply.
    """

    rows: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    predicts_reply: Tensor

    @property
    def next_ids(self) -> Tensor:
        """[B, S] id of the next token (0 at the last position)."""
        return torch.nn.functional.pad(self.input_ids[:, 1:], (0, 1))


def encode_reply(
    tokenizer: ChatTokenizer, messages: Sequence[Message], reply: str, *, max_tokens: int | None = None
) -> EncodedReply:
    """Encode a conversation and a reply; with `max_tokens`, the reply's tail is cut off."""
    prompt = tuple(tokenizer.encode_chat(messages))
    ids = (*tokenizer.encode_text(reply), tokenizer.end_ids[0])
    room = len(ids) if max_tokens is None else max(1, max_tokens - len(prompt))
    return EncodedReply(prompt, ids[:room])


def pad_replies(encoded: Sequence[EncodedReply], rows: Sequence[int], *, pad_id: int) -> ReplyBatch:
    """Build the batch of the named rows."""
    length = max(encoded[row].length for row in rows)
    ids = np.full((len(rows), length), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), length), dtype=np.int64)
    predicts = np.zeros((len(rows), length), dtype=bool)
    for index, row in enumerate(rows):
        item = encoded[row]
        ids[index, : item.length] = item.prompt_ids + item.reply_ids
        mask[index, : item.length] = 1
        predicts[index, len(item.prompt_ids) - 1 : item.length - 1] = True
    return ReplyBatch(
        torch.tensor(list(rows)), torch.from_numpy(ids), torch.from_numpy(mask), torch.from_numpy(predicts)
    )


def held_out_split(rows: Sequence[Row], share: float, *, at_least: int = 0) -> tuple[Sequence[Row], Sequence[Row]]:
    """Return the rows to train on, and the last ones, which are held out.

    Args:
        share: of the rows that is held out, rounded to whole rows. at_least: how many are held out however few there
            are.

    Example:
        >>> held_out_split("abcde", 0.4)
        ('abc', 'de')
    """
    n_train = len(rows) - max(at_least, round(share * len(rows)))
    return rows[:n_train], rows[n_train:]


def shuffled_batches(n_rows: int, *, batch_size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Yield rows in random order, batch by batch, epoch after epoch, without end."""
    while True:
        order = torch.randperm(n_rows, generator=generator).tolist()
        for start in range(0, n_rows - min(batch_size, n_rows) + 1, batch_size):
            yield order[start : start + batch_size]


def length_sorted_batches(encoded: Sequence[EncodedReply], *, batch_size: int) -> Iterator[list[int]]:
    """Yield every row once, rows of like length together, so that little is padded."""
    order = sorted(range(len(encoded)), key=lambda row: encoded[row].length)
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
