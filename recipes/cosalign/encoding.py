"""Encodes training rows as token ids; rows that are too long are dropped and counted, never truncated."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from prosocial.core.batches import EncodedReply, encode_reply
from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import InputError
from prosocial.training.tuning.preference_tuning import EncodedPreference

from .rows import Row

Item = TypeVar("Item")


def encode_replies(rows: Sequence[Row], base: Path, *, max_tokens: int) -> tuple[list[EncodedReply], int]:
    """Encode rows of `messages` and `reply` with a checkpoint's chat template; return them and the number dropped.

    Raises:
        InputError: every row is longer than `max_tokens`.
    """
    tokenizer = ChatTokenizer(base)
    encoded = [encode_reply(tokenizer, row["messages"], row["reply"]) for row in rows]
    fitting = [item for item in encoded if item.length <= max_tokens]
    return _some(fitting, max_tokens), len(encoded) - len(fitting)


def encode_preferences(rows: Sequence[Row], base: Path, *, max_tokens: int) -> tuple[list[EncodedPreference], int]:
    """Encode rows of `messages`, `chosen` and `rejected`; return them and the number dropped.

    Raises:
        InputError: every row is longer than `max_tokens`.
    """
    tokenizer = ChatTokenizer(base)
    encoded = [
        EncodedPreference(*(encode_reply(tokenizer, row["messages"], row[part]) for part in ("chosen", "rejected")))
        for row in rows
    ]
    fitting = [pair for pair in encoded if max(pair.chosen.length, pair.rejected.length) <= max_tokens]
    return _some(fitting, max_tokens), len(encoded) - len(fitting)


def _some(fitting: list[Item], max_tokens: int) -> list[Item]:
    if not fitting:
        raise InputError(f"at least one row should fit into max_tokens {max_tokens}, found none: raise max_tokens")
    return fitting
