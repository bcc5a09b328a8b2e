"""The decoding config: strict, inside its ceilings, and the same after a round trip."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from prosocial.core.errors import ArtefactError, InputError, UnknownNameError
from prosocial.steering.decoding.config import DecodingConfig, preference_vector

NAMES = ["empathy", "truthfulness", "helpfulness"]


@given(st.dictionaries(st.sampled_from(NAMES), st.floats(0, 1e6), min_size=1).filter(lambda w: sum(w.values()) > 1e-3))
def test_a_preference_is_on_the_simplex_in_proportion(weights: dict[str, float]) -> None:
    vector = preference_vector(weights, NAMES)
    total = sum(weights.values())
    assert math.isclose(sum(vector), 1.0) and min(vector) >= 0
    for name, weight in weights.items():
        assert math.isclose(vector[NAMES.index(name)] * total, weight, abs_tol=1e-9)


def test_no_weights_are_a_uniform_preference() -> None:
    assert preference_vector({}, NAMES) == [1 / 3] * 3


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
def test_a_weight_that_is_no_weight_is_refused(weight: float) -> None:
    with pytest.raises(InputError, match="at least 0"):
        preference_vector({"empathy": weight}, NAMES)


def test_weights_without_a_sum_are_refused() -> None:
    with pytest.raises(InputError, match="above 0"):
        preference_vector({"empathy": 0.0}, NAMES)
    with pytest.raises(InputError, match="above 0"):
        preference_vector({"empathy": 1e308, "helpfulness": 1e308}, NAMES)


def test_an_unknown_attribute_lists_the_known() -> None:
    with pytest.raises(UnknownNameError, match="empathy, helpfulness, truthfulness"):
        preference_vector({"kindness": 1.0}, NAMES)


def test_a_round_trip_changes_nothing(pico: Any, tmp_path: Path) -> None:
    config = pico.config()
    config.write(tmp_path)
    assert DecodingConfig.read(tmp_path) == config


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"surprise": 1}, "Extra inputs"),
        ({"plausible_k": "16"}, "valid integer"),
        ({"plausible_k": 0}, "greater than or equal"),
        ({"beta": 0.0}, "greater than 0"),
        ({"beta": float("inf")}, "finite"),
        ({"harm_threshold": 0.95}, "ceiling"),
        ({"threshold_ceiling": 1.5}, "less than or equal"),
        ({"allowed": ["drugs"]}, "ceiling"),
        ({"allowed": ["theft"]}, "unknown harm category"),
        ({"allowed_ceiling": {"theft": True}}, "allowed_ceiling"),
        ({"allowed_ceiling": {"other": True}}, "never allowed"),
        ({"categories": ["violence", "violence"]}, "distinct"),
        ({"preference": {"kindness": 1.0}}, "unknown attribute"),
        ({"safety_configs": {"Bad Name": {}}}, "match pattern"),
        ({"safety_configs": {"x": {"system_prompt": "no slot"}}}, "found it 0 times"),
        ({"category_definitions": {"lies": "x"}}, "category_definitions should name categories"),
        ({"safety_configs": {"x": {"threshold": 0.95}}}, "ceiling"),
        ({"safety_configs": {"x": {"allowed": ["other"]}}}, "ceiling"),
        ({"safety_configs": {"x": {"preference": {"empathy": -1.0}}}}, "at least 0"),
    ],
)
def test_a_config_that_does_not_hold_is_refused(pico: Any, tmp_path: Path, change: Any, match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        pico.config(**change)
    data = pico.config().model_dump(by_alias=True) | change
    (tmp_path / "decoding.json").write_text(json.dumps(data))
    with pytest.raises(ArtefactError, match=r"decoding\.json should"):
        DecodingConfig.read(tmp_path)


def test_another_schema_is_refused_by_name(pico: Any, tmp_path: Path) -> None:
    data = pico.config().model_dump(by_alias=True) | {"schema": "prosocial.decoding/0"}
    (tmp_path / "decoding.json").write_text(json.dumps(data))
    with pytest.raises(ArtefactError, match=r"prosocial\.decoding/0"):
        DecodingConfig.read(tmp_path)


def test_a_category_that_no_ceiling_names_stays_shut() -> None:
    config = DecodingConfig(attributes=["empathy"], categories=["violence", "other"])
    assert config.ceiling_mask() == [False, False] and config.allowed_mask(None) == [False, False]
    assert config.preference_vector(None) == [1.0]
