"""Every tensor gets exactly one coefficient, finite and at least 0, or the scale is refused."""

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prosocial.editing.edits import resolve_scale
from prosocial.editing.edits.scaling import parse_scale
from prosocial.editing.errors import InputError

NAMES = ["model.layers.0.mlp.weight", "model.layers.1.mlp.weight", "model.layers.10.mlp.weight", "model.norm.weight"]
NUMBERS = st.floats(min_value=1e-30, max_value=1e30) | st.just(0.0)
PATTERNS = st.sampled_from([r".*", r".*mlp.*", r"model\.layers\.1\..*", r".*norm\.weight", r"model\.layers\.\d+\..*"])


def coefficients(scale: object) -> dict[str, float]:
    groups = resolve_scale(scale, NAMES)  # type: ignore[arg-type]  # wrong types are tried on purpose
    return {name: group.coefficient for group in groups for name in group.names}


@given(NUMBERS)
def test_one_number_holds_for_all_and_is_exact_in_fp32(number: float) -> None:
    (group,) = resolve_scale(number, NAMES)

    assert coefficients(number) == dict.fromkeys(NAMES, torch.tensor(number, dtype=torch.float32).item())
    assert float(group.decimal) == number
    assert float.fromhex(group.coefficient.hex()) == group.coefficient


@given(st.dictionaries(PATTERNS, NUMBERS, min_size=1))
def test_a_table_gives_every_name_to_the_first_pattern_that_matches_it(table: dict[str, float]) -> None:
    try:
        groups = resolve_scale(table, NAMES)
    except InputError as error:
        assert "should choose some tensor" in str(error)
        return
    assert sorted(name for group in groups for name in group.names) == sorted(NAMES)
    for name in NAMES:
        first = next((number for pattern, number in table.items() if re.fullmatch(pattern, name)), 0.0)
        assert coefficients(table)[name] == torch.tensor(first, dtype=torch.float32).item()


def test_a_pattern_must_match_the_whole_name() -> None:
    """A substring would take layers 1 and 10 for each other."""
    found = coefficients({r"model\.layers\.1\.mlp\.weight": 0.5})

    assert [name for name, coefficient in found.items() if coefficient] == [NAMES[1]]
    with pytest.raises(InputError, match="it matches none"):
        coefficients({"layers.1": 0.5})


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (-0.1, "at least 0"),
        (math.nan, "finite"),
        (math.inf, "finite"),
        (True, "finite"),
        (1e39, "number in fp32"),
        (1e-60, "number in fp32"),
        ({}, "at least one pattern"),
        ({"(": 1.0}, "regular expression"),
        ({".*": 1.0, ".*mlp.*": 0.5}, "earlier patterns took all"),
        ({".*mlp.*": -1.0}, "at least 0"),
    ],
)
def test_a_scale_that_does_not_hold_is_refused(scale: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        coefficients(scale)


def test_minus_zero_is_zero() -> None:
    assert math.copysign(1, resolve_scale(-0.0, NAMES)[0].coefficient) == 1


def test_the_command_line_gives_one_number_or_a_table() -> None:
    assert parse_scale(["0.6"]) == 0.6
    assert parse_scale([r".*a=b.*=0.5", ".*=1"]) == {r".*a=b.*": 0.5, ".*": 1.0}
    for texts in (["much"], ["a=much"], ["0.5", "0.6"], ["a=1", "a=2"], []):
        with pytest.raises(InputError, match=r"a scale should be|at least one"):
            resolve_scale(parse_scale(texts), NAMES)
