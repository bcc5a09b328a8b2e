"""Steering measured: the grid, the exact hypervolume, intervals over runs and topics, monotone steps."""

import json
import re
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prosocial.core.errors import InputError
from prosocial.core.protocols import Judgement, Message
from prosocial.evaluation.probes.probe import Probe
from prosocial.evaluation.steering_scores import (
    GridScores,
    PreferenceGrid,
    hierarchical_bootstrap,
    hypervolume,
    mean_inner_product,
    monotone_steps,
    render_steering,
    score_grid,
    steering_document,
    write_steering_page,
)
from prosocial.evaluation.steering_scores.monotonicity import is_monotone
from prosocial.steering.decoding.reply import Reply

FIVE = ("empathy", "sensitivity", "non_judgmental", "truthfulness", "helpfulness")
unit = st.floats(0, 1, allow_subnormal=False)


def by_inclusion_and_exclusion(points: np.ndarray, reference: np.ndarray) -> float:
    """The volume of a union of boxes, from those of all their intersections."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for chosen in combinations(points, size):
            sides = np.clip(np.min(chosen, axis=0) - reference, 0, None)
            total += (-1) ** (size + 1) * float(sides.prod())
    return total


@settings(max_examples=60, deadline=None)
@given(k=st.integers(1, 5), n=st.integers(1, 7), seed=st.integers(0, 10_000))
def test_the_hypervolume_is_that_of_the_union_of_boxes(k: int, n: int, seed: int) -> None:
    numbers = np.random.default_rng(seed)
    points = numbers.integers(0, 5, (n, k)) / 4 if seed % 2 else numbers.random((n, k))  # with ties, and without
    reference = numbers.random(k) * 0.3
    assert hypervolume(points, reference) == pytest.approx(by_inclusion_and_exclusion(points, reference), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(points=st.lists(st.tuples(unit, unit, unit), min_size=2, max_size=8), seed=st.integers(0, 99))
def test_order_does_not_matter_and_more_points_never_cover_less(points: list[tuple[float, ...]], seed: int) -> None:
    shuffled = [points[at] for at in np.random.default_rng(seed).permutation(len(points))]
    whole = hypervolume(points, [0.0] * 3)
    assert hypervolume(shuffled, [0.0] * 3) == pytest.approx(whole)
    assert hypervolume(points[:-1], [0.0] * 3) <= whole + 1e-12


def test_a_point_that_misses_the_reference_on_one_axis_covers_nothing() -> None:
    assert hypervolume([[0.9, 0.1]], [0.0, 0.2]) == 0.0
    assert hypervolume([[0.9, 0.1], [0.5, 0.7]], [0.0, 0.2]) == pytest.approx(0.25)


@pytest.mark.parametrize("points", [[[1.0, np.nan]], [[1.0]], [1.0, 2.0]])
def test_points_of_another_shape_or_not_finite_are_refused(points: list[object]) -> None:
    with pytest.raises(InputError, match="finite points"):
        hypervolume(points, [0.0, 0.0])  # type: ignore[arg-type]


def test_the_grid_holds_uniform_corners_edges_and_rays_once_each() -> None:
    grid = PreferenceGrid(FIVE)
    points = np.array(grid.points)
    assert len(points) == 1 + 5 * 5 + 10 * 3 and len({*grid.points}) == len(points)
    assert np.allclose(points.sum(1), 1.0) and points.min() >= 0.0
    assert grid.points[0] == (0.2,) * 5
    assert all(grid.corner(index) in grid.points for index in range(5))
    assert (0.25, 0.0, 0.75, 0.0, 0.0) in grid.points
    assert grid.ray(1)[2] == (0.125, 0.5, 0.125, 0.125, 0.125)


def test_edges_and_rays_of_two_attributes_are_the_same() -> None:
    assert sorted(PreferenceGrid(["a", "b"]).points) == [(0.0, 1.0), (0.25, 0.75), (0.5, 0.5), (0.75, 0.25), (1.0, 0.0)]
    assert PreferenceGrid(["a"]).points == [(1.0,)]


@pytest.mark.parametrize("changes", [{"attributes": []}, {"attributes": ["a", "a"]}, {"levels": [0.0, 0.5]}])
def test_a_grid_that_is_none_is_refused(changes: dict[str, list[object]]) -> None:
    with pytest.raises(InputError, match="should"):
        PreferenceGrid(**({"attributes": ["a", "b"]} | changes))  # type: ignore[arg-type]


def test_the_mean_inner_product_is_what_was_asked_for() -> None:
    grid = PreferenceGrid(["a", "b"])
    assert mean_inner_product(grid.points, np.ones((5, 2))) == pytest.approx(1.0)
    assert mean_inner_product([[1, 0], [0, 1]], [[0.8, 0.1], [0.2, 0.6]]) == pytest.approx(0.7)


def scores_of(slope: float, *, spread: float, seed: int, n_topics: int = 12) -> GridScores:
    """A system whose attributes rise with their weight by `slope`; probes of a topic share an offset."""
    grid, numbers = PreferenceGrid(["a", "b"]), np.random.default_rng(seed)
    clusters = tuple(f"topic {index % n_topics}" for index in range(4 * n_topics))
    topics = np.tile(numbers.normal(0, spread, n_topics), 4)[:, None]
    noise = numbers.normal(0, 0.05, (len(grid.points), len(clusters), 2))
    weights = np.array(grid.points)[:, None, :]
    values = 0.5 + (slope + topics) * (weights - 0.5) + noise
    return GridScores("system", ("a", "b"), tuple(grid.points), clusters, values)


def test_steps_that_rise_are_told_from_steps_that_do_not() -> None:
    grid = PreferenceGrid(["a", "b"])
    rising = monotone_steps([scores_of(0.4, spread=0.01, seed=n) for n in range(3)], grid, draws=200)
    assert len(rising) == 8 and is_monotone(rising)
    assert all(step.change.low > 0 and step.change.estimate == pytest.approx(0.1, abs=0.03) for step in rising)
    assert [(step.before, step.after) for step in rising[:4]] == [(0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)]
    falling = monotone_steps([scores_of(-0.4, spread=0.01, seed=0)], grid, draws=50)
    assert not is_monotone(falling)


def test_intervals_widen_with_what_topics_and_runs_do_not_share() -> None:
    grid = PreferenceGrid(["a", "b"])

    def width(runs: list[GridScores]) -> float:
        change = monotone_steps(runs, grid, draws=300)[0].change
        return change.high - change.low

    alike = [scores_of(0.4, spread=0.0, seed=n) for n in range(6)]
    by_topic = [scores_of(0.4, spread=1.0, seed=n) for n in range(6)]
    by_run = [scores_of(slope, spread=0.0, seed=n) for n, slope in enumerate((0.1, 0.2, 0.3, 0.5, 0.6, 0.7))]
    assert width(by_topic) > 2 * width(alike) and width(by_run) > 2 * width(alike)
    assert width(by_topic[:1]) > 2 * width(alike[:1]) > 0  # with one run, topics alone are drawn


def test_the_bootstrap_of_a_mean_covers_it() -> None:
    """On 8 runs of 10 topics the nominal 90 % interval covers the truth in 75 % of the cases or more."""
    covered = 0
    for trial in range(60):
        numbers = np.random.default_rng(trial)
        values = [numbers.normal(0, 0.2) + np.repeat(numbers.normal(0, 0.3, 10), 3) for _ in range(8)]
        clusters = [[at // 3 for at in range(30)] for _ in values]
        found = hierarchical_bootstrap(
            clusters,
            lambda draw, values=values: {"m": float(np.mean([values[run] @ w / w.sum() for run, w in draw]))},
            seed=trial,
            draws=200,
            confidence=0.9,
        )["m"]
        covered += found.low <= 0.0 <= found.high
    assert covered >= 45


def test_no_runs_and_a_preference_off_the_grid_are_refused() -> None:
    with pytest.raises(InputError, match="one or more runs"):
        hierarchical_bootstrap([], lambda draw: {}, seed=0)
    with pytest.raises(InputError, match="at least one run"):
        monotone_steps([], PreferenceGrid(["a", "b"]))
    with pytest.raises(InputError, match="does not"):
        scores_of(0.4, spread=0.0, seed=0).at((0.1, 0.9))


class LengthJudge:
    """Scores by length; says nothing of attribute b where the reply is empty."""

    name, version = "length", "1"

    def judge(self, messages: list[Message], reply: str) -> Judgement:
        """Judge one reply."""
        scores = {"a": min(1.0, len(reply) / 10)} | ({"b": 1.0 - len(reply) / 10} if reply else {})
        return Judgement(attributes=scores, refusal="none")


PROBES = [Probe(f"p{n}", ({"role": "user", "content": "hello"},), "benign", cluster=f"t{n % 2}") for n in range(4)]


def test_a_grid_is_scored_preference_by_preference() -> None:
    grid = PreferenceGrid(["a", "b"])

    def answer(probes: list[Probe], preferences: list[dict[str, float]]) -> list[Reply]:
        return [Reply("x" * round(2 + 6 * one["a"]), (), "end") for _, one in zip(probes, preferences, strict=True)]

    found = score_grid("s", ["a", "b"], grid.points, PROBES, answer=answer, judge=LengthJudge())  # type: ignore[arg-type]
    assert found.values.shape == (5, 4, 2) and found.clusters == ("t0", "t1", "t0", "t1")
    assert found.means()[found.at((1.0, 0.0))] == pytest.approx([0.8, 0.2])
    back = GridScores.from_json(found.to_json(), where="here")
    assert back.preferences == found.preferences and np.allclose(back.values, found.values)
    weighted = found.means(np.array([1.0, 0.0, 2.0, 0.0]))
    assert np.allclose(weighted, found.means())  # all probes score alike here
    with pytest.raises(InputError, match="shape"):
        GridScores.from_json({**found.to_json(), "clusters": ["t0"]}, where="here")


def test_a_judge_that_leaves_an_attribute_out_is_refused() -> None:
    with pytest.raises(InputError, match="'b' on every reply"):
        score_grid(
            "s", ["a", "b"], [(0.5, 0.5)], PROBES, answer=lambda p, w: [Reply("", (), "end")] * 4, judge=LengthJudge()
        )  # type: ignore[arg-type]


def test_means_count_probes_by_weight() -> None:
    values = np.arange(12, dtype=float).reshape(2, 3, 2)
    found = GridScores("s", ("a", "b"), ((1.0, 0.0), (0.0, 1.0)), ("t", "u", "u"), values)
    for point, attribute in product(range(2), range(2)):
        expected = (values[point, 0, attribute] + 3 * values[point, 2, attribute]) / 4
        assert found.means(np.array([1.0, 0.0, 3.0]))[point, attribute] == expected


def unsteered_scores() -> GridScores:
    found = scores_of(0.0, spread=0.0, seed=9)
    return GridScores("plain", found.attributes, found.preferences[:1], found.clusters, found.values[:1])


def test_the_document_says_what_its_numbers_hang_on(tmp_path: Path) -> None:
    grid = PreferenceGrid(["a", "b"])
    systems = {"head": scores_of(0.4, spread=0.02, seed=1), "flat": scores_of(0.0, spread=0.0, seed=2)}
    document = steering_document(systems, grid, unsteered=unsteered_scores(), draws=50)
    head, flat = document["systems"]["head"], document["systems"]["flat"]
    assert document["reference"] == [0.0, 0.0] and document["normalisation"].startswith("none")
    assert head["hypervolume"] == pytest.approx(hypervolume(head["means"], [0.0, 0.0]), abs=1e-5)
    assert head["hypervolume"] > flat["hypervolume"] and head["mean_inner_product"] > flat["mean_inner_product"]
    assert head["gains"]["a"]["estimate"] == pytest.approx(0.2, abs=0.05) and head["gains"]["a"]["low"] > 0
    higher = steering_document(systems, grid, reference=[0.4, 0.4], draws=5)["systems"]["head"]
    assert higher["hypervolume"] < head["hypervolume"] and higher["gains"] == {}
    write_steering_page(tmp_path, document)
    assert json.loads((tmp_path / "steering.json").read_text()) == document


def test_systems_that_answered_other_probes_are_refused() -> None:
    systems = {"one": scores_of(0.4, spread=0.0, seed=1), "two": scores_of(0.4, spread=0.0, seed=1, n_topics=6)}
    with pytest.raises(InputError, match="same probes"):
        steering_document(systems, PreferenceGrid(["a", "b"]))


def test_the_page_draws_every_preference_and_needs_nothing() -> None:
    grid = PreferenceGrid(["a", "b"])
    systems = {"<script>": scores_of(0.4, spread=0.02, seed=1), "flat": scores_of(0.0, spread=0.0, seed=2)}
    text = render_steering(steering_document(systems, grid, draws=20))
    assert text.count("<circle") == 2 * len(grid.points) and "<title>a 0.25, b 0.75</title>" in text
    assert "<script>" not in text and "&lt;script&gt;" in text
    assert not re.search(r"(src|href)=|url\(", text)
    at = [float(value) for value in re.findall(r'c[xy]="([-.0-9]+)"', text)]
    assert min(at) >= 0 and max(at) <= 440
