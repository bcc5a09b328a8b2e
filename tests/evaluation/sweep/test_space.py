"""What a sweep may choose, which trials no other beats, and which is taken."""

import math
import random
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosocial.core.errors import InputError, UnknownNameError
from prosocial.editing.edits.scaling import Coefficients, resolve_scale
from prosocial.evaluation.statistics.interval import Interval
from prosocial.evaluation.sweep.journal import neighbour
from prosocial.evaluation.sweep.pareto import pareto_front
from prosocial.evaluation.sweep.space import Choice, SearchSpace, searched, tilted
from prosocial.evaluation.sweep.trials import Trial, best_of, front_of, picked

NAMES = [
    "model.embed_tokens.weight",
    *(f"model.layers.{layer}.{part}.weight" for layer in range(11) for part in ("mlp.up", "self_attn.q", "norm")),
    "model.norm.weight",
]
points = st.lists(st.tuples(*[st.integers(0, 4).map(float)] * 3), max_size=12)


def _rate(value: float) -> Interval:
    return Interval(value, 0.0, 1.0, 10, 5)


def _trial(number: int, harm: float | None, kl: float = 0.1, lost: float | None = 0.0) -> Trial:
    known = harm is not None and lost is not None
    return Trial(
        number,
        Choice("plain", 0.5),
        "f" * 64,
        -1.0,
        kl,
        None if harm is None else _rate(harm),
        _rate(0.9) if known else None,
        Interval(lost, -1.0, 1.0, 10, 5) if known and lost is not None else None,
    )


@given(points)
def test_the_front_is_what_brute_force_finds(found: list[tuple[float, ...]]) -> None:
    def beaten(point: tuple[float, ...]) -> bool:
        return any(other != point and all(a <= b for a, b in zip(other, point, strict=True)) for other in found)

    assert pareto_front(found) == [index for index, point in enumerate(found) if not beaten(point)]


@given(points)
def test_every_point_is_on_the_front_or_beaten_by_one_on_it(found: list[tuple[float, ...]]) -> None:
    front = pareto_front(found)

    assert bool(front) == bool(found)
    for point in found:
        assert any(all(a <= b for a, b in zip(found[index], point, strict=True)) for index in front)


def test_the_front_and_the_best_of_trials() -> None:
    trials = [
        _trial(0, 0.8, 0.1, 0.0),
        _trial(1, 0.4, 0.3, 0.03),
        _trial(2, 0.1, 0.2, 0.2),
        _trial(3, 0.4, 0.4, 0.03),
        _trial(4, None, 9.0),
    ]

    assert [trial.number for trial in front_of(trials)] == [2, 1, 0]
    assert (best_of(trials, max_utility_loss=0.03) or trials[4]).number == 1
    assert (best_of(trials, max_utility_loss=0.2) or trials[4]).number == 2
    assert picked(trials, "3", max_utility_loss=0.03).number == 3
    with pytest.raises(UnknownNameError, match=r"unknown trial '7': known are 0, 1, 2, 3, 4, best"):
        picked(trials, "7", max_utility_loss=0.03)
    with pytest.raises(InputError, match="none does"):
        picked(trials[2:3], "best", max_utility_loss=0.03)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 9), st.floats(-1, 1)), min_size=1, max_size=10), st.floats(0, 1)
)
def test_the_best_is_always_on_the_front_and_in_the_limit(rows: list[tuple[float, float, float]], limit: float) -> None:
    trials = [_trial(number, *row) for number, row in enumerate(rows)]
    best = best_of(trials, max_utility_loss=limit)
    allowed = [trial for trial in trials if trial.utility_lost and trial.utility_lost.estimate <= limit + 1e-9]

    assert (best is None) == (not allowed)
    if best is not None and best.harm is not None:
        assert best in allowed
        assert all(trial.harm is not None and trial.harm.estimate >= best.harm.estimate for trial in allowed)
        points = [trial.objectives for trial in front_of(trials)]
        assert any(point is not None and point[0] <= best.harm.estimate and point[1] <= best.kl for point in points)


def test_without_a_word_on_utility_harm_and_kl_are_left() -> None:
    trials = [_trial(0, 0.5, 0.1, None), _trial(1, 0.2, 0.3, None), _trial(2, 0.5, 0.3, None)]

    assert [trial.objectives for trial in trials] == [(0.5, 0.1), (0.2, 0.3), (0.5, 0.3)]
    assert [trial.number for trial in front_of(trials)] == [1, 0]
    assert (best_of(trials, max_utility_loss=0.0) or trials[0]).number == 1


@pytest.mark.parametrize("trial", [_trial(3, 0.25), _trial(4, None, 12.0), _trial(5, None, math.inf)])
def test_a_trial_survives_json(trial: Trial) -> None:
    assert Trial.from_json(trial.to_json()) == trial


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 5))
def test_coefficients_are_linear_over_the_layers_and_never_negative(tilt: float, other: float, scale: float) -> None:
    (start, end), (attention, mlp) = tilted(tilt), tilted(other)
    choice = Choice("plain", round(scale, 6), ramp=(start, end), balance=(attention, mlp))
    groups = resolve_scale(choice.coefficients(NAMES), NAMES)
    by_name = {name: group.coefficient for group in groups for name in group.names}

    assert by_name.keys() == set(NAMES)
    for name, coefficient in by_name.items():
        layer = int(name.split(".")[2]) if "layers" in name else 0
        part = mlp if "mlp" in name else attention if "attn" in name else 1.0
        assert coefficient == pytest.approx(scale * (start + (end - start) * layer / 10) * part, abs=2e-6)
        assert coefficient >= 0


@pytest.mark.parametrize("names", [["wte.weight"], ["lm_head.weight", "norm.weight"]])
def test_a_ramp_over_no_layers_is_the_scale(names: list[str]) -> None:
    assert Choice("plain", 0.5, ramp=(0.0, 1.0)).coefficients(names) == 0.5


def test_one_layer_gets_the_start() -> None:
    scale = Choice("plain", 2.0, ramp=(0.5, 1.0)).coefficients(["h.0.attn.weight"])

    assert scale == Coefficients({"h.0.attn.weight": 1.0})


def test_trials_draw_inside_the_space() -> None:
    space = SearchSpace(("plain", "top_k", "low_rank"), scale=(0.2, 1.4))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    choices = [space.choose(study.ask()) for _ in range(60)]

    assert {choice.method for choice in choices} == {"plain", "top_k", "low_rank"}
    for choice in choices:
        assert 0.2 <= choice.scale <= 1.4
        assert max(choice.ramp) == max(choice.balance) == 1.0
        assert min(choice.ramp + choice.balance) >= 0.0
        assert set(choice.parameters) == set(searched(choice.method))
        for name, value in choice.parameters.items():
            number = searched(choice.method)[name]
            assert number.search is not None and number.search[0] <= value <= number.search[1]
            assert not number.whole or isinstance(value, int)


def test_given_parameters_are_not_searched_and_reach_their_method_only() -> None:
    space = SearchSpace(("plain", "top_k"), given={"density": 0.25, "utility": "folder"})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))

    assert all(space.choose(study.ask()).parameters == {} for _ in range(8))
    assert space.given_to("top_k") == {"density": 0.25}
    assert space.given_to("plain") == {}
    assert SearchSpace(("project",), given={"utility": "/a/b/folder"}).to_json()["given"] == {"utility": "folder"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": ()}, "at least one method"),
        ({"methods": ("plane",)}, "unknown method 'plane'"),
        ({"methods": ("project",)}, "project should be given utility"),
        ({"methods": ("top_k",), "given": {"density": 2.0}}, r"density should be a number in \(0, 1\]"),
        ({"methods": ("plain",), "scale": (-0.5, 1.0)}, "at least 0"),
        ({"methods": ("plain",), "scale": (0.0, math.inf)}, "at least 0"),
        ({"methods": ("plain",), "scale": (0.0, math.nan)}, "at least 0"),
        ({"methods": ("plain",), "scale": (1.0, 1.0)}, "at least 0"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SearchSpace(**arguments)


def test_a_neighbour_moves_one_or_two_numbers_and_stays_inside_the_space() -> None:
    space = SearchSpace(("plain", "top_k", "low_rank"), scale=(0.2, 1.4))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for number in range(60):
        asked = study.ask()
        space.choose(asked)
        study.tell(asked, 1.0)
        trial = study.trials[number]
        near = neighbour(trial, random.Random(number))
        moved = [name for name, value in near.items() if value != trial.params[name]]

        assert near["method"] == trial.params["method"] and near.keys() == trial.params.keys()
        assert 1 <= len(moved) <= 2
        for name in moved:
            assert trial.distributions[name].low <= near[name] <= trial.distributions[name].high


@pytest.mark.parametrize("scale", [(0.05, 6.0), (0.2, 1.4), (2.5, 2.9)])
@pytest.mark.filterwarnings("ignore:PartialFixedSampler is experimental")
def test_a_sweep_begins_with_shapes_that_spare_the_early_layers(scale: tuple[float, float]) -> None:
    space = SearchSpace(("plain", "top_k"), scale=scale)
    choices, random_sampler = [], optuna.samplers.RandomSampler(seed=0)
    for start in space.starts():
        study = optuna.create_study(sampler=optuna.samplers.PartialFixedSampler(start, random_sampler))
        choices.append(space.choose(study.ask()))

    assert [choice.method for choice in choices] == ["plain", "top_k", "plain", "top_k"]
    assert all(scale[0] <= choice.scale <= scale[1] for choice in choices)
    assert [choice.ramp[0] for choice in choices] == [1.0, 0.5, 0.0, 0.25]  # of the first layer; the last has 1
    assert all(choice.ramp[1] == 1.0 for choice in choices)
    assert choices[0].balance == (1.0, 1.0)


def test_a_sweep_that_spreads_nothing_has_no_starts() -> None:
    assert SearchSpace(("plain",), spread=False).starts() == []
