"""Every tensor gets exactly one coefficient, finite and at least 0, or the scale is refused."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prosocial.core.errors import InputError
from prosocial.editing.edits import resolve_scale
from prosocial.editing.edits.scaling import Coefficients, Ramp, parse_ramp, parse_scale, read_coefficients

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
        assert "should select some tensor" in str(error)
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


def test_a_part_of_a_name_is_answered_with_the_pattern_that_works() -> None:
    with pytest.raises(InputError, match="it is a part of 3 of them") as refused:
        coefficients({r"mlp": 0.5})
    pattern = re.search(r"write '(.*)'", str(refused.value))
    assert pattern and sum(map(bool, coefficients({pattern[1]: 0.5}).values())) == 3


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (-0.1, "at least 0"),
        (math.nan, "finite"),
        (math.inf, "finite"),
        (True, "finite"),
        (1e39, "range of fp32"),
        (1e-60, "range of fp32"),
        ({}, "at least one pattern"),
        ({"(": 1.0}, "regular expression"),
        ({".*": 1.0, ".*mlp.*": 0.5}, "earlier patterns match all"),
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


LAYERS = ["model.embed_tokens.weight", *(f"model.layers.{n}.mlp.weight" for n in (0, 1, 4)), "model.norm.weight"]


@given(NUMBERS, NUMBERS)
def test_a_ramp_is_linear_in_the_depth_and_stays_between_its_ends(start: float, end: float) -> None:
    groups = resolve_scale(Ramp(start, end), LAYERS)
    found = {name: group.coefficient for group in groups for name in group.names}

    assert sorted(found) == sorted(LAYERS)
    low, high = sorted((start, end))
    assert all(value >= 0 for value in found.values())
    assert all(low * (1 - 1e-6) - 1e-37 <= value <= high * (1 + 1e-6) for value in found.values())
    outside_and_first = {found[LAYERS[0]], found[LAYERS[1]], found[LAYERS[4]]}
    assert outside_and_first == {torch.tensor(start, dtype=torch.float32).item()}
    assert found[LAYERS[3]] == torch.tensor(end, dtype=torch.float32).item()
    assert found[LAYERS[2]] == pytest.approx(start + (end - start) / 4, rel=1e-6, abs=1e-6 * high + 1e-37)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["transformer.wte.weight", "transformer.wpe.weight", "transformer.h.0.a", "transformer.h.2.a"], [1, 1, 1, 3]),
        (["lm_head.weight", "model.layers.0.a", "model.layers.2.a"], [1, 1, 3]),
        (["model.layers.0.a", "model.layers.1.a", "model.norm.weight"], [1, 3, 1]),
    ],
)
def test_a_ramp_starts_outside_the_layers(names: list[str], expected: list[float]) -> None:
    groups = resolve_scale(Ramp(1, 3), names)
    found = {name: group.coefficient for group in groups for name in group.names}

    assert [found[name] for name in names] == expected


@pytest.mark.parametrize(("start", "end"), [(-0.1, 1), (1, -0.1), (math.nan, 1), (0, math.inf), (1e39, 0)])
def test_a_ramp_may_at_neither_end_add(start: float, end: float) -> None:
    with pytest.raises(InputError, match="a scale should be"):
        resolve_scale(Ramp(start, end), LAYERS)


def test_a_ramp_needs_layers_and_two_ends() -> None:
    with pytest.raises(InputError, match="layer numbers"):
        resolve_scale(Ramp(0, 1), ["weight"])
    for text in ("0.5", "a:1", ""):
        with pytest.raises(InputError, match=r"START:END|a scale should be a number"):
            parse_ramp(text)


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_a_file_gives_numbers_by_name_and_what_it_leaves_out_takes_none(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"scale{suffix}"
    file.write_text(json.dumps({NAMES[0]: 0.5, NAMES[3]: 2}))

    assert coefficients(read_coefficients(file)) == dict.fromkeys(NAMES, 0.0) | {NAMES[0]: 0.5, NAMES[3]: 2.0}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"model.norm.weight": -1}', "at least 0"),
        ("a.json", '{"model.norm.weight": NaN}', "finite"),
        ("a.yaml", "model.norm.weight: .inf", "finite"),
        ("a.json", '{"model.norm": 1}', "found 'model.norm'"),
        ("a.json", "{}", "found no coefficient"),
        ("a.json", "[1]", "found list"),
        ("a.json", "{", "JSON or YAML file"),
        ("a.yaml", "a: [", "JSON or YAML file"),
        ("a.json", '{"model.norm.weight": true}', "a number"),
        ("a.yaml", "model.norm.weight: much", "a number"),
        ("a.json", '{"model.norm.weight": 1, "model.norm.weight": 2}', "occurs twice"),
        ("a.yaml", "model.norm.weight: 1\nmodel.norm.weight: 2", "occurs twice"),
        ("b.json", None, "JSON or YAML file"),
    ],
)
def test_a_file_that_does_not_hold_is_refused(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        coefficients(read_coefficients(tmp_path / name))


def test_coefficients_of_a_negative_zero_are_zero() -> None:
    assert math.copysign(1, coefficients(Coefficients({NAMES[0]: -0.0}))[NAMES[0]]) == 1
