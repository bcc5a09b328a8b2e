"""Invisible characters do not hide a forbidden phrase, and what is searched for has a bounded length."""

import subprocess
import sys
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest

from prosocial.core.errors import ArtefactError, InputError
from prosocial.steering.decoding.config import DecodingConfig, ReplySettings
from prosocial.steering.decoding.phrases import LONGEST_PHRASE, MOST_CHARACTERS, PhraseFinder, folded

INVISIBLE = {
    "null": "\x00",
    "backspace": "\x08",
    "escape": "\x1b",
    "delete": "\x7f",
    "control of C1": "\x80",
    "soft hyphen": "\u00ad",
    "combining grapheme joiner": "\u034f",
    "Arabic letter mark": "\u061c",
    "Hangul choseong filler": "\u115f",
    "Hangul jungseong filler": "\u1160",
    "Khmer inherent vowel": "\u17b4",
    "Mongolian variation selector": "\u180b",
    "Mongolian variation selector four": "\u180f",
    "Mongolian vowel separator": "\u180e",
    "zero-width space": "\u200b",
    "zero-width non-joiner": "\u200c",
    "zero-width joiner": "\u200d",
    "right-to-left mark": "\u200f",
    "right-to-left override": "\u202e",
    "word joiner": "\u2060",
    "invisible times": "\u2062",
    "unassigned ignorable": "\u2065",
    "isolate": "\u2066",
    "nominal digit shapes": "\u206f",
    "Hangul filler": "\u3164",
    "variation selector": "\ufe00",
    "emoji variation selector": "\ufe0f",
    "byte order mark": "\ufeff",
    "halfwidth Hangul filler": "\uffa0",
    "interlinear annotation": "\ufff9",
    "shorthand format control": "\U0001bca0",
    "musical beam": "\U0001d173",
    "tag": "\U000e0041",
    "cancel tag": "\U000e007f",
    "variation selector 17": "\U000e0100",
    "variation selector 256": "\U000e01ef",
    "unassigned in the plane of tags": "\U000e0fff",
    "lone surrogate": "\ud800",
}
WAYS: dict[str, Callable[[str], str]] = {
    "between all letters": lambda mark: mark.join("bomb"),
    "many in a row": lambda mark: f"bo{mark * 50}mb",
    "before a capital": lambda mark: f"BO{mark}MB",
    "between full-width letters": lambda mark: mark.join("\uff42\uff4f\uff4d\uff42"),
}


@pytest.mark.parametrize("mark", INVISIBLE.values(), ids=INVISIBLE)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_an_invisible_character_does_not_hide_a_phrase(mark: str, way: Callable[[str], str]) -> None:
    assert PhraseFinder([folded("Bomb")]).find(folded(f"a {way(mark)}.")) == 2


@pytest.mark.parametrize("mark", INVISIBLE.values(), ids=INVISIBLE)
def test_it_does_not_hide_an_accented_letter_or_stand_in_the_phrase_itself(mark: str) -> None:
    assert folded(f"caf{mark}e{mark}\u0301") == folded("caf\u00e9")
    assert PhraseFinder([folded(f"bo{mark}mb")]).find("bomb") == 0


def test_every_format_character_of_unicode_is_invisible() -> None:
    every = [chr(code) for code in range(sys.maxunicode + 1)]
    assert [each for each in every if unicodedata.category(each) == "Cf" and folded(f"a{each}b") != "ab"] == []
    visible = [each for each in every if unicodedata.category(each)[0] in "LNPS" and not folded(each).strip()]
    assert set(visible) <= {"\u115f", "\u1160", "\u3164", "\uffa0", "\u2800"}, "no visible character disappears"


def test_spaces_that_look_like_others_are_spaces() -> None:
    for space in "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\u00a0\u1680\u2003\u2028\u2029\u202f\u205f\u2800\u3000":
        assert folded(f"make{space}{space}it") == "make it", hex(ord(space))


TOO_MUCH: dict[str, list[str]] = {
    "one character too long": ["x" * (LONGEST_PHRASE + 1)],
    "a million characters": ["x" * 1_000_000],
    "ten million characters": ["xy" * 5_000_000],
    "long after a short one": ["x", "y" * 100_000],
    "too many together": ["a" * 1000] * 1001,
    "many different ones": [f"{n:0500}" for n in range(MOST_CHARACTERS // 500 + 1)],
    "an empty one": ["x", ""],
}


@pytest.mark.parametrize("phrases", TOO_MUCH.values(), ids=TOO_MUCH)
def test_what_no_automaton_can_hold_is_refused(phrases: list[str]) -> None:
    with pytest.raises(InputError, match="phrases should"):
        PhraseFinder(phrases)
    with pytest.raises(ValueError, match="stop"):
        ReplySettings(stop=phrases)
    with pytest.raises(InputError, match="stop"):
        ReplySettings().changed(stop=phrases)


@pytest.mark.parametrize("phrases", [*list(TOO_MUCH.values())[:-1], ["\u200b"], ["\ufdfa" * 1000]])
def test_a_config_with_such_phrases_is_refused(pico: Any, phrases: list[str]) -> None:
    """The last one is short, but not after its normalisation."""
    for field in ("forbidden_phrases", "stop"):
        value = pico.config().model_dump(by_alias=True) | {field: phrases}
        if field == "forbidden_phrases" or len(phrases[-1]) > 1000 or len(phrases) > 1000:
            with pytest.raises(ArtefactError, match=field) as refused:
                DecodingConfig.parse(value, source="decoding.json")
            assert len(str(refused.value)) < 500


def test_the_longest_phrase_does_not_overflow_a_small_stack() -> None:
    """The bound holds in a thread too, whose stack is smaller than that of the main thread."""
    program = """
import threading
from prosocial.steering.decoding.phrases import LONGEST_PHRASE, PhraseFinder
threading.stack_size(512 * 1024)
def work():
    finder = PhraseFinder(["x" * LONGEST_PHRASE, "y" * LONGEST_PHRASE])
    assert finder.find("z" + "x" * LONGEST_PHRASE) == 1
    del finder
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
