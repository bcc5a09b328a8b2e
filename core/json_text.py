"""Parsing of JSON that nobody can read in two ways: one strict reader for JSON files, JSONL rows and payloads."""

import json
import math
import re
from collections import Counter
from typing import Any, NoReturn

from .errors import ArtefactError

MAX_NESTING = 64
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # the escape of half a character


def parse_json(text: str | bytes, *, where: str, finite: bool = True) -> Any:
    """Parse JSON text strictly: what two parsers may read differently is refused.

    Refused are duplicate keys, more than 64 levels of nesting, integers of more than 4,300 digits, half characters
    (lone surrogates) and, with `finite`, NaN, Infinity and numbers that overflow to it. A byte order mark is skipped.

    Args:
        text: the JSON, as text or as UTF-8 bytes.
        where: where the text is from, such as the path of its file, for the message.
        finite: False accepts NaN and infinite numbers, as the configs of some models contain.

    Raises:
        ArtefactError: the text is not JSON, or has one of the refused parts (one line, with the reason).

    Examples:
        >>> parse_json('{"scale": 1}', where="scale.json")
        {'scale': 1}
        >>> parse_json('{"scale": 1, "scale": 2}', where="scale.json")
        Traceback (most recent call last):
        ...
        prosocial.core.errors.ArtefactError: scale.json should hold JSON: the key 'scale' occurs twice; correct it
    """
    numbers: dict[str, Any] = {"parse_constant": _refuse_constant, "parse_float": _finite} if finite else {}
    try:
        decoded = decode(text, where=where)
        value = json.loads(decoded, object_pairs_hook=_without_duplicates, **numbers)
        _check_nesting(value)
        if SURROGATE.search(decoded):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise ArtefactError(f"{where} should hold JSON: {half!r} is half a character; correct it") from None
    except RecursionError:
        raise ArtefactError(f"{where} should hold JSON: its nesting is too deep; correct it") from None
    except ValueError as error:  # a JSONDecodeError, or an integer with too many digits
        raise ArtefactError(f"{where} should hold JSON: {error}; correct it") from None
    return value


def parse_object(text: str | bytes, *, where: str, finite: bool = True) -> dict[str, Any]:
    """Parse a JSON object strictly, as `parse_json` does.

    Raises:
        ArtefactError: the text is not JSON that `parse_json` accepts, or is another value than an object.
    """
    value = parse_json(text, where=where, finite=finite)
    if not isinstance(value, dict):
        raise ArtefactError(f"{where} should hold a JSON object, found {type(value).__name__}; correct it")
    return value


def decode(text: str | bytes, *, where: str) -> str:
    """Return text without a byte order mark.

    Raises:
        ArtefactError: bytes that are not UTF-8.
    """
    try:
        return (text.decode("utf-8") if isinstance(text, bytes) else text).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ArtefactError(f"{where} should be UTF-8 text: {error}; save it as UTF-8") from None


def parse_rows(text: str | bytes, *, where: str) -> list[dict[str, Any]]:
    r"""Parse JSONL: one JSON object per line; empty lines are skipped.

    Only "\n", "\r\n" and "\r" end a line: JSON strings may contain U+2028 or U+0085, at which `str.splitlines` splits.

    Raises:
        ArtefactError: a line is not a JSON object that `parse_object` accepts (the message names the line).

    Examples:
        >>> parse_rows('{"text": "one\u2028two"}\r\n\n{"text": "three"}', where="rows.jsonl")
        [{'text': 'one\u2028two'}, {'text': 'three'}]
    """
    lines = enumerate(re.split("\r\n|\r|\n", decode(text, where=where)), start=1)
    return [parse_object(line, where=f"{where} line {number}") for number, line in lines if line.strip()]


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r:.80} occurs twice")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text:.40} is too large")
    return number


def _check_nesting(value: Any) -> None:
    """Check, level by level, that containers are nested at most `MAX_NESTING` deep."""
    level = [value]
    for _ in range(MAX_NESTING + 1):
        level = [item for each in level if isinstance(each, dict | list) for item in _items(each)]
        if not level:
            return
    raise ValueError(f"more than {MAX_NESTING} levels of nesting")


def _items(container: dict[str, Any] | list[Any]) -> list[Any]:
    return list(container.values()) if isinstance(container, dict) else container
