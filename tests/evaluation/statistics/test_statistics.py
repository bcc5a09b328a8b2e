"""Intervals and tests against scipy, and their coverage by simulation."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from prosocial.core.errors import InputError
from prosocial.evaluation.statistics import (
    Interval,
    clopper_pearson,
    cluster_bootstrap,
    clustered_difference,
    clustered_mean,
    clustered_rate,
    effective_size,
    holm,
    mcnemar_exact,
    minimum_detectable_difference,
    newcombe,
    wilson,
)
from prosocial.evaluation.statistics.distributions import beta_quantile, incomplete_beta, student_quantile

COUNTS = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(st.floats(0, 1), st.floats(0.05, 3000), st.floats(0.05, 3000))
def test_incomplete_beta_agrees_with_scipy(x: float, a: float, b: float) -> None:
    assert incomplete_beta(x, a, b) == pytest.approx(special.betainc(a, b, x), rel=1e-8, abs=1e-12)


@given(st.floats(0.001, 0.999), st.floats(0.5, 1000), st.floats(0.5, 1000))
def test_beta_quantile_is_the_inverse(p: float, a: float, b: float) -> None:
    assert special.betainc(a, b, beta_quantile(p, a, b)) == pytest.approx(p, abs=1e-9)


@given(st.floats(0.001, 0.999), st.floats(1, 500))
def test_student_quantile_agrees_with_scipy(p: float, degrees: float) -> None:
    assert student_quantile(p, degrees) == pytest.approx(stats.t.ppf(p, degrees), rel=1e-7, abs=1e-9)


@given(COUNTS, st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_wilson_and_clopper_pearson_agree_with_scipy(counts: tuple[int, int], confidence: float) -> None:
    k, n = counts
    oracle = stats.binomtest(k, n)
    for found, method in ((wilson, "wilson"), (clopper_pearson, "exact")):
        mine, theirs = found(k, n, confidence=confidence), oracle.proportion_ci(confidence, method=method)
        assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@pytest.mark.parametrize(("side", "alternative"), [("upper", "less"), ("lower", "greater")])
def test_one_sided_bounds_agree_with_scipy(side: str, alternative: str) -> None:
    theirs = stats.binomtest(3, 50, alternative=alternative).proportion_ci(0.95, method="exact")
    mine = clopper_pearson(3, 50, side=side)  # type: ignore[arg-type]
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@pytest.mark.parametrize(("k", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(k: int, n: int) -> None:
    with pytest.raises(InputError):
        wilson(k, n)
    with pytest.raises(InputError):
        clopper_pearson(k, n)


@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_is_the_exact_binomial_test(newly: int, undone: int) -> None:
    expected = 1.0 if newly + undone == 0 else stats.binomtest(newly, newly + undone).pvalue
    assert mcnemar_exact(newly, undone) == pytest.approx(expected, rel=1e-9)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_adjusts_upwards_keeps_order_and_ignores_the_order_given(values: list[float]) -> None:
    adjusted = holm(values)
    assert all(value <= new <= 1 for value, new in zip(values, adjusted, strict=True))
    assert holm(values[::-1]) == adjusted[::-1]
    ranked = [new for _, new in sorted(zip(values, adjusted, strict=True))]
    assert ranked == sorted(ranked)
    if values:
        assert min(adjusted) == pytest.approx(min(1.0, len(values) * min(values)))


def test_holm_multiplies_by_the_number_of_tests_still_open() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_newcombe_gives_the_published_interval() -> None:
    """Newcombe 1998, method 10, the pairs (e, f, g, h) = (36, 12, 2, 0)."""
    before, after = [True] * 48 + [False] * 2, [True] * 36 + [False] * 12 + [True] * 2
    found = newcombe(after, before)
    assert (found.low, found.high) == pytest.approx((0.0569, 0.3404), abs=5e-5)


def test_newcombe_does_not_count_on_a_weak_positive_correlation() -> None:
    """A cross product of at most n / 2 counts as none: the limits are those of two independent rates."""
    n = 40
    before = [True] * 20 + [False] * 20
    after = [True] * 11 + [False] * 9 + [True] * 10 + [False] * 10  # 11 * 10 - 9 * 10 = 20 = n / 2
    found = newcombe(before, after)
    first, second = wilson(21, n), wilson(20, n)
    down = math.hypot(first.estimate - first.low, second.high - second.estimate)
    up = math.hypot(first.high - first.estimate, second.estimate - second.low)
    assert (found.low, found.high) == pytest.approx((0.025 - down, 0.025 + up))
    strong = newcombe(before, before)
    assert strong.high - strong.low < found.high - found.low


def test_newcombe_covers() -> None:
    rng = np.random.default_rng(5)
    draws = rng.choice(4, p=[0.55, 0.2, 0.05, 0.2], size=(500, 40))  # both, undone, newly, neither
    found = [newcombe((row <= 1).tolist(), ((row == 0) | (row == 2)).tolist()) for row in draws]
    assert np.mean([one.low <= -0.15 <= one.high for one in found]) > 0.93


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_newcombe_changes_sign_with_the_direction_and_holds_its_estimate(pairs: list[tuple[bool, bool]]) -> None:
    before, after = ([pair[side] for pair in pairs] for side in (0, 1))
    there, back = newcombe(before, after), newcombe(after, before)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert -1 <= there.low <= there.estimate <= there.high <= 1


def test_minimum_detectable_difference_agrees_with_simulated_power() -> None:
    """The difference it names is seen about four times in five by the exact test."""
    n = 400
    difference = minimum_detectable_difference(n)
    rng = np.random.default_rng(0)
    draws = rng.multinomial(n, [difference + 0.02, 0.02, 1 - difference - 0.04], size=1500)
    seen = np.mean([mcnemar_exact(int(newly), int(undone)) < 0.05 for newly, undone, _ in draws])
    assert 0.7 < seen < 0.88


def test_more_pairs_show_smaller_differences() -> None:
    found = [minimum_detectable_difference(n) for n in (20, 100, 1000)]
    assert found == sorted(found, reverse=True)
    with pytest.raises(InputError):
        minimum_detectable_difference(0)


def _clustered(
    rng: np.random.Generator, rate: float, sizes: Sequence[int], correlation: float
) -> tuple[list[float], list[int]]:
    """Draw beta-binomial clusters with an intra-cluster correlation."""
    scale = 1 / correlation - 1
    rates = rng.beta(rate * scale, (1 - rate) * scale, size=len(sizes))
    values = [float(rng.random() < rates[g]) for g, size in enumerate(sizes) for _ in range(size)]
    return values, [g for g, size in enumerate(sizes) for _ in range(size)]


@pytest.mark.parametrize(("rate", "correlation"), [(0.3, 0.02), (0.3, 0.3), (0.05, 0.3), (0.95, 0.02)])
def test_clustered_rate_covers_where_the_plain_interval_does_not(rate: float, correlation: float) -> None:
    rng = np.random.default_rng(7)
    sizes = [4 + index % 3 for index in range(25)]
    covered = plain = 0
    n_draws = 200
    for _ in range(n_draws):
        values, clusters = _clustered(rng, rate, sizes, correlation)
        low, high = clustered_rate(values, clusters).widest()
        covered += low <= rate <= high
        naive = wilson(sum(values), len(values))
        plain += naive.low <= rate <= naive.high
    assert covered / n_draws > 0.91
    if correlation > 0.2:
        assert plain / n_draws < 0.91  # the control: clusters matter here


@pytest.mark.parametrize("correlation", [0.02, 0.3])
def test_clustered_difference_covers(correlation: float) -> None:
    rng = np.random.default_rng(8)
    sizes = [4 + index % 3 for index in range(30)]
    covered = 0
    n_draws = 400
    for _ in range(n_draws):
        before, clusters = _clustered(rng, 0.7, sizes, correlation)
        after = [value * float(rng.random() < 0.4) for value in before]
        found = clustered_difference(before, after, clusters)
        covered += found.low <= -0.42 <= found.high
    assert covered / n_draws > 0.92


def test_with_one_reply_per_cluster_the_difference_is_the_paired_t_interval() -> None:
    rng = np.random.default_rng(1)
    before, after = rng.random(40), rng.random(40)
    found = clustered_difference(before.tolist(), after.tolist(), list(range(40)))
    theirs = stats.ttest_rel(after, before).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)


def test_copies_of_every_reply_in_its_cluster_add_nothing() -> None:
    values = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    clusters = list(range(8))
    once = clustered_mean(values, clusters)
    copied = clustered_mean(values * 5, clusters * 5)
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))
    rate, copied_rate = clustered_rate(values, clusters), clustered_rate(values * 5, clusters * 5)
    assert copied_rate.high - copied_rate.low > 0.9 * (rate.high - rate.low)
    assert effective_size(values * 5, clusters * 5) == pytest.approx(8, rel=0.15)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=40))
def test_a_clustered_rate_is_never_narrower_than_the_exact_interval_and_holds_its_estimate(
    rows: list[tuple[bool, int]],
) -> None:
    values, clusters = [float(value) for value, _ in rows], [cluster for _, cluster in rows]
    found = clustered_rate(values, clusters)
    exact = clopper_pearson(sum(values), len(values))
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    assert found.high - found.low >= exact.high - exact.low - 1e-9
    order = np.random.default_rng(0).permutation(len(rows))
    again = clustered_rate([values[i] for i in order], [clusters[i] for i in order])
    assert (again.low, again.high) == pytest.approx((found.low, found.high))


def test_without_events_the_limits_are_exact_and_the_clusters_count_once_beside_them() -> None:
    found = clustered_rate([0.0] * 200, [index // 10 for index in range(200)])
    assert found.high == pytest.approx(clopper_pearson(0, 200).high)
    assert found.conservative is not None
    assert found.conservative[1] == pytest.approx(clopper_pearson(0, 20).high)
    assert found.n_clusters == 20


def test_identical_pairs_leave_room_for_unseen_ones() -> None:
    """Where no pair changed, an interval of width zero would be a lie."""
    found = clustered_difference([1.0] * 50, [1.0] * 50, [index // 5 for index in range(50)])
    assert found.estimate == 0 and found.low < 0 < found.high
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 50))
    assert found.conservative is not None and found.conservative[1] == pytest.approx(1 - 0.025 ** (1 / 10))
    all_changed = clustered_difference([1.0] * 50, [0.0] * 50, list(range(50)))
    assert all_changed.low == -1 and -1 < all_changed.high < -0.8


def test_one_cluster_says_nothing_of_others() -> None:
    assert clustered_rate([1.0, 0.0, 0.0], ["a"] * 3).high > 0.95
    found = clustered_difference([1.0, 0.0], [0.0, 0.0], ["a", "a"])
    assert (found.low, found.high) == (-1.0, 1.0)
    assert effective_size([1.0, 0.0], ["a", "a"]) == 1
    unbounded = clustered_mean([1.0, 2.0], ["a", "a"])
    assert unbounded.to_json()["low"] is None


def test_bootstrap_agrees_with_the_robust_interval_and_repeats_with_its_seed() -> None:
    rng = np.random.default_rng(3)
    values, clusters = _clustered(rng, 0.4, [5] * 60, 0.2)
    found, robust = cluster_bootstrap(values, clusters, seed=1), clustered_mean(values, clusters)
    assert (found.low, found.high) == pytest.approx((robust.low, robust.high), abs=0.02)
    assert cluster_bootstrap(values, clusters, seed=1) == found


def test_wrong_input_is_refused() -> None:
    with pytest.raises(InputError, match="values and"):
        clustered_rate([1.0], [])
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        clustered_rate([2.0], ["a"])
    with pytest.raises(InputError, match="should be in"):
        clustered_mean([2.0], ["a"], bounds=(0, 1))
    with pytest.raises(InputError, match="before and after"):
        clustered_difference([1.0], [1.0, 0.0], ["a"])
    with pytest.raises(InputError, match="before and after"):
        newcombe([], [])
    with pytest.raises(InputError, match="negative"):
        mcnemar_exact(-1, 0)


def test_an_interval_excludes_only_at_its_widest_reading() -> None:
    plain = Interval(-0.2, -0.3, -0.1, 10, 5)
    assert plain.excludes(0) and not plain.excludes(-0.2)
    assert not Interval(-0.2, -0.3, -0.1, 10, 5, conservative=(-0.5, 0.1)).excludes(0)
    assert Interval(math.inf, 0, 1, 1, 1).to_json()["estimate"] is None
