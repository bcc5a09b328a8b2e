"""Patterns whose matching would take very long are refused; ordinary ones match as before."""

import re
import time

import pytest

from prosocial.core.errors import InputError
from prosocial.core.patterns import LONGEST_PATTERN, bounded_pattern
from prosocial.editing.edits.scaling import parse_scale, resolve_scale

ORDINARY = [
    r".*",
    r".*mlp.*",
    r"model\.layers\.\d+\.mlp\.(up|down|gate)_proj\.weight",
    r"model\.layers\.(0|1|2|3|4|5|6|7|8|9|10|11)\..*(q|k|v|o)_proj.*",
    r"(.*\.)?self_attn\.[qkvo]_proj\.weight",
    r"model.layers.[0-9]{1,2}.*",
    r"(?i).*MLP.*",
    r"(?!.*lm_head).*",
    r"(ab){3}.*",
    r"model\.embed_tokens\.weight|lm_head\.weight",
]
TRAPS = [
    "(a+)+b",
    "(a*)*b",
    "(a+)*b",
    "(.*)*b",
    "(.+)+b",
    "(a|a)*b",
    "(a|ab|b)*c",
    "(a|aa)+$",
    "([a-z]+)*1",
    "(x+x+)+y",
    "((a+)b?)+c",
    "(a{1,30}){1,30}b",
    "(a?){30}a{30}",
    "a?" * 40 + "a" * 40,
    "(a|a)" * 40,
    ".*" * 10 + "x",
    ".*a.*a.*a.*a.*a.*a.*a.*b",
    "(?=(a+)+b)a",
    "(?!(.*)*b)a",
    "(?:a+)+?b",
    "(?P<n>a+)(?:(?P=n)+)+b",
    "(a)(?(1)(b+)+c|d)",
    "x" * (LONGEST_PATTERN + 1),
    "(" * 300 + ")" * 300,
    "a{1,99999999999999999999}",
    "(",
    "[z-a]",
    "(?<=a+)b",
    "\\",
]


@pytest.mark.parametrize("pattern", ORDINARY)
def test_an_ordinary_pattern_is_the_one_of_re(pattern: str) -> None:
    compiled = bounded_pattern(pattern, what="it")
    assert compiled == re.compile(pattern)
    started = time.process_time()
    for letter in "ab.0":
        compiled.fullmatch(letter * 200 + "!")
    assert time.process_time() - started < 5


@pytest.mark.parametrize("pattern", TRAPS)
def test_a_pattern_that_is_a_trap_is_refused_at_once(pattern: str) -> None:
    started = time.process_time()
    with pytest.raises(InputError, match="it should") as refused:
        bounded_pattern(pattern, what="it")
    assert time.process_time() - started < 2 and len(str(refused.value)) < 300


def test_a_scale_is_refused_before_it_is_matched() -> None:
    name = "model.layers.0.mlp." + "a" * 60
    with pytest.raises(InputError, match="a scale's pattern should"):
        resolve_scale(parse_scale(["(a+)+b=0.5"]), [name])
