"""Text from files, models and users as it may be shown: without characters that control a terminal or hide text."""

import json
from typing import Any
from unicodedata import category

# They change the order in which a line is read, so that shown text differs from the text that is there.
BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_HIDDEN_TAGS = range(0xE0000, 0xE0080)  # letters that no terminal shows


def printable(text: str) -> str:
    r"""Return text with every control character as a visible escape; newlines and tabs stay.

    Escaped are C0 and C1 controls (so no ANSI or OSC sequence starts), marks that reorder a line (bidi), line
    separators, tag characters, and lone surrogates, which no encoding can write.

    Examples:
        >>> printable("a\x1b[2Jb")
        'a\\x1b[2Jb'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(letter) if _is_unsafe(letter) else letter for letter in text)


def printable_json(value: Any, **options: Any) -> str:
    r"""Return JSON that a terminal can show: control characters in its strings are escaped as JSON escapes them.

    Args:
        value: JSON value.
        options: arguments of `json.dumps`, such as `indent`.

    Examples:
        >>> printable_json({"a": "\x9b2J"})
        '{"a": "\\u009b2J"}'
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, **options)
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(json.dumps(letter)[1:-1] if _is_unsafe(letter) else letter for letter in text)


def one_line(text: str) -> str:
    """Return text on one line, as `printable`; runs of white space become one space."""
    return printable(" ".join(text.split()))


def _is_unsafe(letter: str) -> bool:
    if letter in "\n\t":
        return False
    return category(letter) in ("Cc", "Cs", "Zl", "Zp") or letter in BIDIRECTIONAL or ord(letter) in _HIDDEN_TAGS


def _escape(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
