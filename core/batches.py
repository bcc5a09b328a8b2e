"""Prompt-and-reply token sequences as right-padded batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from .protocols import Message, PromptEncoder

Row = TypeVar("Row")


@dataclass(frozen=True)
class EncodedReply:
    """A conversation and one reply to it as token ids.

    Attributes:
        prompt_ids: token ids of the conversation, up to where the reply starts.
        reply_ids: token ids of the reply, with an end-of-sequence id at the end unless the reply was truncated.
    """

    prompt_ids: tuple[int, ...]
    reply_ids: tuple[int, ...]

    @property
    def length(self) -> int:
        """Number of tokens of prompt and reply together."""
        return len(self.prompt_ids) + len(self.reply_ids)


@dataclass(frozen=True)
class ReplyBatch:
    """A batch of B right-padded sequences of length S.

    Attributes:
        rows: [B] index of each sequence in the list that the batch was taken from.
        input_ids: [B, S] token ids.
        attention_mask: [B, S] 1 at tokens, 0 at padding.
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
    tokenizer: PromptEncoder, messages: Sequence[Message], reply: str, *, max_tokens: int | None = None
) -> EncodedReply:
    """Encode a conversation and a reply.

    Args:
        tokenizer: tokenizer with a chat template.
        messages: the conversation.
        reply: text of the reply.
        max_tokens: truncate the reply so that both together have at most this many tokens; at least one token of the
            reply stays.

    Raises:
        InputError: see `ChatTokenizer.encode_chat`.
    """
    prompt = tuple(tokenizer.encode_chat(messages))
    ids = (*tokenizer.encode_text(reply), tokenizer.end_ids[0])
    room = len(ids) if max_tokens is None else max(1, max_tokens - len(prompt))
    return EncodedReply(prompt, ids[:room])


def pad_replies(encoded: Sequence[EncodedReply], rows: Sequence[int], *, pad_id: int) -> ReplyBatch:
    """Return a right-padded batch of the sequences at the given indices.

    Args:
        encoded: all sequences.
        rows: indices of the sequences to take, B of them.
        pad_id: token id to pad with.
    """
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
    """Return the rows to train on and the rows held out for evaluation, which are the last ones.

    Args:
        rows: all rows.
        share: fraction of the rows to hold out; the number of rows is rounded.
        at_least: smallest number of rows to hold out.

    Examples:
        >>> held_out_split("abcde", 0.4)
        ('abc', 'de')
    """
    n_train = len(rows) - max(at_least, round(share * len(rows)))
    return rows[:n_train], rows[n_train:]


def length_sorted_batches(encoded: Sequence[EncodedReply], *, batch_size: int) -> Iterator[list[int]]:
    """Yield batches that hold every row index once, sorted by length so that batches need little padding."""
    order = sorted(range(len(encoded)), key=lambda row: encoded[row].length)
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
