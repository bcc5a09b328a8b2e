"""Requests by name become arrays: defaults, safety configs, overrides."""

from typing import Any

import numpy as np
import pytest

from prosocial.core.errors import InputError, UnknownNameError
from prosocial.steering.decoding.controls import Steering, control_arrays, one_per_row, with_safety_text

USER = {"role": "user", "content": "hello"}


def test_nothing_asked_is_the_default(pico: Any) -> None:
    arrays = control_arrays(pico.config(), [Steering()])
    assert arrays.preference.tolist() == [[0.5, 0.5]] and arrays.allowed.tolist() == [[0, 0, 0]]
    assert arrays.harm_threshold == np.float32(0.6) and arrays.reward_scale == 1.0
    assert all(array.dtype == np.float32 for array in arrays.as_inputs().values())


def test_a_safety_config_sets_and_an_argument_overrides(pico: Any) -> None:
    requests = [
        Steering(safety_config="fiction"),
        Steering(safety_config="fiction", harm_threshold=0.2, allowed=[], preference={"empathy": 2.0}),
    ]
    arrays = control_arrays(pico.config(), requests)
    assert arrays.allowed.tolist() == [[1, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(arrays.harm_threshold, np.array([0.7, 0.2], np.float32))
    assert arrays.preference.tolist() == [[0.5, 0.5], [1, 0]]
    assert arrays.rows([1]).harm_threshold == np.float32(0.2)


@pytest.mark.parametrize(
    ("steering", "error", "match"),
    [
        (Steering(safety_config="nothing"), UnknownNameError, "fiction"),
        (Steering(harm_threshold=0.95), InputError, "ceiling"),
        (Steering(harm_threshold=float("nan")), InputError, "ceiling"),
        (Steering(reward_scale=-1.0), InputError, "reward_scale"),
        (Steering(reward_scale=101.0), InputError, "reward_scale"),
        (Steering(allowed=["drugs"]), InputError, "ceiling"),
        (Steering(allowed=["other"]), InputError, "ceiling"),
        (Steering(preference={"kindness": 1.0}), UnknownNameError, "attribute"),
    ],
)
def test_what_cannot_be_asked_is_refused(pico: Any, steering: Steering, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        control_arrays(pico.config(), [steering])


def test_the_text_of_a_safety_config_comes_first(pico: Any) -> None:
    config, request = pico.config(), Steering(safety_config="fiction")
    assert with_safety_text(config, Steering(), [USER]) == [USER]
    assert with_safety_text(config, request, [USER]) == [{"role": "system", "content": "word7 word8"}, USER]
    own = {"role": "system", "content": "own"}
    assert with_safety_text(config, request, [own, USER]) == [
        {"role": "system", "content": "word7 word8\n\nown"},
        USER,
    ]


def test_one_request_serves_all_rows_or_each_has_its_own() -> None:
    assert one_per_row(None, 2) == [Steering(), Steering()]
    assert one_per_row(Steering(reward_scale=2.0), 2) == [Steering(reward_scale=2.0)] * 2
    with pytest.raises(InputError, match="one Steering per conversation"):
        one_per_row([Steering()], 2)
