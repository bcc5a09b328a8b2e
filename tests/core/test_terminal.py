"""No text from a file or a model can control a terminal, hide itself, or change what a line seems to say."""

import json
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosocial.core.terminal import one_line, printable, printable_json

HOSTILE = {
    "clear screen": "\x1b[2J",
    "title": "\x1b]0;pwned\x07",
    "hyperlink": "\x1b]8;;http://evil\x1b\\text\x1b]8;;\x1b\\",
    "C1 control": "\x9b2J",
    "C1 OSC": "\x9d0;pwned\x9c",
    "bell and backspace": "\x07\x08",
    "carriage return": "good\rbad ",
    "delete": "\x7f",
    "null": "\x00",
    "right to left": "\u202egnp.exe",
    "isolate": "\u2067a\u2069",
    "mark": "\u200f",
    "line separator": "a\u2028b\u2029c",
    "next line": "a\x85b",
    "tags": "\U000e0041\U000e0042",
    "lone surrogate": "\ud800",
    "clipboard": "\x1b]52;c;cm0gLXJmIH4K\x07",
    "device status": "\x1b[6n",
    "another character set": "\x1b(0lqk\x0e",
    "C1 string that never ends": "\x90q\x98\x9e\x9f",
    "cursor up and erase": "PASS\x1b[1A\x1b[2K",
    "form feed and vertical tab": "a\x0cb\x0bc",
    "override inside an embedding": "\u202a\u202d\u202c\u2066\u2068\u2069",
    "arabic mark": "a\u061cb",
}


def raw(text: str) -> list[str]:
    """Return the characters that must not be shown as they are."""
    return [one for one in text if one not in "\n\t" and category(one) in ("Cc", "Cs", "Zl", "Zp")]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_escaped_visibly(text: str) -> None:
    shown = printable(text)

    assert raw(shown) == [] and "\\" in shown
    assert not set(shown) & set("\x1b\x9b\x9d\x85\r\u2028\u2029\u202e\u2067\u2069\u200f")
    assert shown.encode("utf-8")
    assert printable(shown) == shown
    assert "\n" not in one_line(text + "\n" + text)


ORDINARY = ["plain", "two\nlines\tand a tab", "é 漢 \U0001f469\u200d\U0001f680 שלום", "a\u00a0b"]
VALUES = st.text() | st.integers() | st.none()


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays(text: str) -> None:
    assert printable(text) == text


@given(st.recursive(VALUES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_stays_the_same_value(value: object) -> None:
    text = printable_json(value)

    assert json.loads(text) == value
    assert raw(text) == []


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_json_stays_json(text: str) -> None:
    shown = printable_json({text: text})

    assert json.loads(shown) == {text: text}
    assert shown.encode("utf-8") and printable(shown) == shown
