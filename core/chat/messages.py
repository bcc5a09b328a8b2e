"""Checked messages: their form, roles and limits, and their texts marked with the message that they come from."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InputError
from ..protocols import Message
from .sourced_text import FIRST_MESSAGE, TEMPLATE, SourcedText

ROLES = ("system", "user", "assistant")
MAX_MESSAGES = 4096
MAX_CHARACTERS = 4_000_000  # of all texts of a conversation together
MAX_DEPTH = 32  # of lists and objects inside a message
REASONING = ("reasoning_content", "thinking", "reasoning")  # keys that transformers treats as one


def require_messages(messages: object) -> None:
    """Check that a conversation is a list of messages with a known role and a text, within the limits.

    Raises:
        InputError: it is something else, too long, or holds a value that has no place in JSON or UTF-8.
    """
    if isinstance(messages, str) or not isinstance(messages, Sequence):
        raise InputError(f"a conversation should be a list of messages, found {type(messages).__name__}")
    if len(messages) > MAX_MESSAGES:
        raise InputError(f"a conversation should have at most {MAX_MESSAGES} messages, found {len(messages)}")
    n_characters = 0
    for message in messages:
        if not isinstance(message, Mapping) or not (
            message.get("role") in ROLES and isinstance(message.get("content"), str)
        ):
            raise InputError(f"a message should have a role of {ROLES} and a text content, found {message!r:.120}")
        n_characters += _n_characters(message, MAX_DEPTH)
        if n_characters > MAX_CHARACTERS:
            raise InputError(f"a conversation should have at most {MAX_CHARACTERS} characters: shorten it")


def require_text(text: object) -> None:
    """Check that something is a text that UTF-8 can hold.

    Raises:
        InputError: it is no text, or has a lone surrogate (half of a character of UTF-16).
    """
    if not isinstance(text, str):
        raise InputError(f"a text should be a str, found {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"a text should be valid Unicode, found half of a character ({text[error.start]!r}) at {error.start}: "
            "remove it"
        ) from None


def sourced_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return checked messages for a template: each text knows its message, and roles count as the template's own.

    As in transformers, keys without a value are left out, and reasoning stands under each of its names.
    """
    sourced = []
    for index, message in enumerate(messages):
        present = {key: value for key, value in message.items() if value is not None}
        given = _sourced(present, chr(FIRST_MESSAGE + index))
        reasoning = next((given[key] for key in REASONING if key in given), None)
        if reasoning is not None:
            given = {"thinking": reasoning, **given, "reasoning_content": reasoning}
        sourced.append(given | {"role": SourcedText.of(message["role"], TEMPLATE)})
    return sourced


def _sourced(value: Any, source: str) -> Any:
    if isinstance(value, str):
        return SourcedText.of(str(value), source)
    if isinstance(value, Mapping):
        return {_sourced(key, source): _sourced(item, source) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_sourced(item, source) for item in value]
    return value


def _n_characters(value: Any, depth: int) -> int:
    """Return the number of characters of all texts in a value, and check that it is plain JSON."""
    if depth < 0:
        raise InputError(f"a message should have at most {MAX_DEPTH} levels: write it flatter")
    if isinstance(value, str):
        require_text(value)
        return len(value)
    if isinstance(value, Mapping):
        return sum(_n_characters(key, depth) + _n_characters(item, depth - 1) for key, item in value.items())
    if isinstance(value, list | tuple):
        return len(value) + sum(_n_characters(item, depth - 1) for item in value)
    if not (value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))):
        raise InputError(f"a message should hold texts, numbers, lists and objects, found {value!r:.80}")
    return 1
