"""Prompt-and-reply token sequences as right-padded batches."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from .cores import free_memory_bytes, is_out_of_memory
from .errors import InputError
from .protocols import Message, PromptEncoder

Row = TypeVar("Row")
Result = TypeVar("Result")
MOST_TOKENS = {"cpu": 4096}  # of a batch: more make a CPU no faster
MOST_TOKENS_ELSEWHERE = 32768
MEMORY_SHARE = 0.25  # of the free memory that a batch may take


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

    def to(self, device: torch.device | str) -> "ReplyBatch":
        """Return the batch on a device."""
        return ReplyBatch(*(getattr(self, each.name).to(device) for each in fields(self)))

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


def token_budget_batches(lengths: Sequence[int], *, budget: int) -> Iterator[list[int]]:
    """Yield batches that hold every row index once, of nearly equal lengths, short rows first; ties keep their order.

    Args:
        lengths: tokens of each row.
        budget: most tokens of a batch with its padding; a row of more tokens is alone in its batch.

    Examples:
        >>> list(token_budget_batches([2, 9, 1, 2], budget=6))
        [[2, 0, 3], [1]]
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[row] > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def token_budget(device: torch.device, *, bytes_per_token: int) -> int:
    """Return how many tokens a batch may have, so that it takes a quarter of the memory that a device has free.

    Args:
        device: where the batch is computed.
        bytes_per_token: memory that a token of the batch needs.
    """
    most = MOST_TOKENS.get(device.type, MOST_TOKENS_ELSEWHERE)
    return max(1, min(most, int(MEMORY_SHARE * free_bytes(device)) // bytes_per_token))


def free_bytes(device: torch.device) -> int:
    """Return the bytes that can still be allocated on a device."""
    match device.type:
        case "cuda":
            cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
            return int(torch.cuda.mem_get_info(device)[0]) + cached
        case "mps":
            return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
        case _:
            return free_memory_bytes()


def halving(
    run: Callable[[list[int]], Result], rows: Sequence[int], *, remedy: str = ""
) -> Iterator[tuple[list[int], Result]]:
    """Run a batch and yield its rows with the result; where memory runs out, halve the batch and try again.

    Args:
        run: what to do with some rows of the batch.
        rows: the batch.
        remedy: what to do if a single row does not fit, for the message.

    Raises:
        InputError: a single row does not fit into memory.

    Examples:
        >>> def run(rows: list[int]) -> int:
        ...     if len(rows) > 2:
        ...         raise MemoryError
        ...     return sum(rows)
        >>> list(halving(run, [1, 2, 3]))
        [([1], 1), ([2, 3], 5)]
    """
    waiting = [list(rows)]
    while waiting:
        part = waiting.pop()
        try:
            result = run(part)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(part) == 1:
                advice = remedy or "choose a smaller dtype, another device, or shorter rows"
                raise InputError(f"one row should fit into memory, it does not: {advice}") from error
            middle = len(part) // 2
            waiting += [part[middle:], part[:middle]]
        else:
            yield part, result
            continue
        release_cached_memory()


def release_cached_memory() -> None:
    """Give the memory that torch keeps for later back to the accelerator, if there is one."""
    if torch.accelerator.is_available():
        torch.accelerator.memory.empty_cache()
