"""Encodes training rows as token ids; rows that are too long are dropped and counted, never truncated."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from prosocial.core.batches import EncodedReply, encode_reply
from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import InputError
from prosocial.core.protocols import Message
from prosocial.training.tuning.preference import EncodedPreference

Item = TypeVar("Item")


def encode_replies(
    replies: Sequence[tuple[Sequence[Message], str]], base: Path, *, max_tokens: int
) -> tuple[list[EncodedReply], int]:
    """Encode conversations with a reply each by a checkpoint's chat template; return them and the number dropped.

    Raises:
        InputError: every row is longer than `max_tokens`.
    """
    tokenizer = ChatTokenizer(base)
    encoded = [encode_reply(tokenizer, messages, reply) for messages, reply in replies]
    fitting = [item for item in encoded if item.length <= max_tokens]
    return _some(fitting, max_tokens), len(encoded) - len(fitting)


def encode_preferences(
    pairs: Sequence[tuple[Sequence[Message], str, str]], base: Path, *, max_tokens: int
) -> tuple[list[EncodedPreference], int]:
    """Encode conversations with a chosen and a rejected reply each; return them and the number dropped.

    Raises:
        InputError: every row is longer than `max_tokens`.
    """
    tokenizer = ChatTokenizer(base)
    encoded = [
        EncodedPreference(*(encode_reply(tokenizer, messages, reply) for reply in (chosen, rejected)))
        for messages, chosen, rejected in pairs
    ]
    fitting = [pair for pair in encoded if max(pair.chosen.length, pair.rejected.length) <= max_tokens]
    return _some(fitting, max_tokens), len(encoded) - len(fitting)


def _some(fitting: list[Item], max_tokens: int) -> list[Item]:
    if not fitting:
        raise InputError(f"at least one row should fit into max_tokens {max_tokens}, found none: raise max_tokens")
    return fitting
