"""The statistics against scipy, statsmodels, published tables and brute force, and what their intervals cover."""

import gc
import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from prosocial.core.errors import InputError
from prosocial.evaluation.statistics import (
    Interval,
    JudgeErrors,
    PairedTable,
    clopper_pearson,
    clustered_difference,
    clustered_rate,
    corrected_difference,
    corrected_rate,
    holm,
    mcnemar_clustered,
    mcnemar_exact,
    newcombe,
    newcombe_of_table,
    non_inferiority,
    wilson,
)

Z = stats.norm.ppf(0.975)
RATES = [round(0.02 * step, 2) for step in range(1, 50)]
SIZES = (50, 100, 200, 500, 1000)


def _tables(count: int = 1000) -> list[PairedTable]:
    rng = np.random.default_rng(20261121)
    drawn = [rng.multinomial(rng.integers(1, 1001), rng.dirichlet(rng.choice([0.1, 1.0], 4))) for _ in range(count)]
    return [PairedTable(*map(int, row)) for row in drawn]


TABLES = _tables()


def test_a_thousand_random_tables_agree_with_scipy_and_statsmodels() -> None:
    sizes = np.array([table.n for table in TABLES])
    events = np.array([table.both + table.newly for table in TABLES])
    for method, name in ((wilson, "wilson"), (clopper_pearson, "beta")):
        found = np.array([[one.low, one.high] for one in map(method, events.tolist(), sizes.tolist())])
        low, high = proportion_confint(events, sizes, method=name)
        # at the ends theirs is nan or rounded
        expected = np.stack([np.where(events == 0, 0.0, low), np.where(events == sizes, 1.0, high)], axis=1)
        assert np.abs(found - expected).max() < 1e-9
    for table in TABLES:
        newly, undone = int(table.newly), int(table.undone)
        theirs = mcnemar([[table.both, undone], [newly, table.neither]], exact=True).pvalue if newly + undone else 1.0
        assert mcnemar_exact(newly, undone) == pytest.approx(theirs, abs=1e-9)


def test_holm_agrees_with_statsmodels_on_a_thousand_families(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "collect", lambda: 0)  # statsmodels collects garbage in every call: 0.2 s each
    rng = np.random.default_rng(1)
    for size in rng.integers(1, 20, 1000):
        values = (rng.random(size) ** rng.integers(1, 5)).tolist()
        assert holm(values) == pytest.approx(multipletests(values, method="holm")[1].tolist(), abs=1e-9)


@pytest.mark.parametrize(
    ("cells", "low", "high", "digits"),
    [
        ((36, 12, 2, 0), 0.0569, 0.3404, 4),  # Newcombe 1998, Table III, method 10
        ((20, 12, 2, 16), 0.0562, 0.3292, 4),  # the same
        ((1, 97, 1, 1), 0.8737, None, 4),  # the same; negative correlation
        ((1, 1, 7, 12), -0.507, -0.026, 3),  # Fagerland, Lydersen and Laake 2014
        ((8, 3, 1, 2), -0.1574, 0.4136, 4),  # Tang, Li and Tang 2010
        ((7, 25, 2, 68), 0.133, 0.318, 3),  # Chang 2024
    ],
)
def test_newcombe_gives_what_was_published(
    cells: tuple[int, int, int, int], low: float, high: float | None, digits: int
) -> None:
    """The published ones are first minus second, with cells both, first only, second only, neither."""
    both, first_only, second_only, neither = cells
    found = newcombe_of_table(PairedTable(both, second_only, first_only, neither))
    assert round(found.low, digits) == low
    assert high is None or round(found.high, digits) == high


def _score_limit(k: float, n: float, side: int) -> float:
    """Return where the score test just accepts, by root finding: the definition, not the formula."""
    rate = k / n
    if (side < 0 and k == 0) or (side > 0 and k == n):
        return rate

    def gap(p: float) -> float:
        return abs(rate - p) - Z * math.sqrt(p * (1 - p) / n)

    return float(optimize.brentq(gap, *((0.0, rate - 1e-12) if side < 0 else (rate + 1e-12, 1.0)), xtol=1e-15))


def _brute_newcombe(table: PairedTable) -> tuple[float, float]:
    rows = [(1, 1)] * int(table.both) + [(1, 0)] * int(table.undone) + [(0, 1)] * int(table.newly)
    pairs = np.array(rows + [(0, 0)] * int(table.neither), dtype=float)
    n, (before, after) = len(pairs), pairs.mean(0)
    spread = math.sqrt(before * (1 - before) * after * (1 - after))
    covariance = float(((pairs[:, 0] - before) * (pairs[:, 1] - after)).mean())
    if covariance > 0:
        covariance = max(0.0, covariance - 0.5 / n)
    phi = covariance / spread if spread else 0.0
    limits = {side: [_score_limit(round(rate * n), n, side) for rate in (before, after)] for side in (-1, 1)}
    down = np.array([after - limits[-1][1], -(limits[1][0] - before)])
    up = np.array([limits[1][1] - after, -(before - limits[-1][0])])
    shape = np.array([[1, phi], [phi, 1]])
    width = [math.sqrt(max(0.0, float(side @ shape @ side))) for side in (down, up)]
    return max(-1.0, after - before - width[0]), min(1.0, after - before + width[1])


def test_newcombe_equals_a_brute_force_of_its_definition() -> None:
    for table in TABLES[:300]:
        found = newcombe_of_table(table)
        assert (found.low, found.high) == pytest.approx(_brute_newcombe(table), abs=1e-9)


def test_newcombe_of_counts_is_newcombe_of_pairs() -> None:
    before, after = [True, True, False, False, True], [True, False, True, False, False]
    assert newcombe(before, after) == newcombe_of_table(PairedTable(1, 2, 1, 1))


def test_clustered_mcnemar_is_the_plain_one_for_single_replies_and_brute_force_else() -> None:
    assert mcnemar_clustered([1] * 14 + [-1] * 3 + [0] * 9, range(26)) == mcnemar_exact(14, 3)
    rng = np.random.default_rng(3)
    for _ in range(40):
        clusters = rng.integers(0, 9, 30).tolist()
        changes = rng.choice([-1, 0, 1], 30).tolist()
        totals = [sum(c for c, g in zip(changes, clusters, strict=True) if g == one) for one in set(clusters)]
        flips = itertools.product((-1, 1), repeat=len(totals))
        reached = [abs(sum(s * t for s, t in zip(signs, totals, strict=True))) >= abs(sum(totals)) for signs in flips]
        assert mcnemar_clustered(changes, clusters) == pytest.approx(np.mean(reached), abs=1e-9)


def test_copies_of_a_reply_do_not_make_a_change_clearer() -> None:
    """The control: McNemar's test on the copies as if they were independent would say so."""
    changes, prompts = [1, 1, 1, 1, 1, 0, 0], list(range(7))
    assert mcnemar_clustered(changes * 5, prompts * 5) == pytest.approx(mcnemar_clustered(changes, prompts))
    assert mcnemar_exact(25, 0) < 1e-6 < 0.05 < mcnemar_clustered(changes * 5, prompts * 5)
    with pytest.raises(InputError, match="cluster"):
        mcnemar_clustered([1], [])


def test_clustered_mcnemar_keeps_its_level() -> None:
    rng = np.random.default_rng(4)
    rejected = 0
    for _ in range(400):
        lean = rng.choice([-1, 1], 30)  # a whole prompt leans one way by chance
        changes = (lean[:, None] * (rng.random((30, 5)) < 0.3)).ravel().tolist()
        rejected += mcnemar_clustered(changes, np.repeat(np.arange(30), 5).tolist()) < 0.05
    assert rejected / 400 < 0.075


@pytest.mark.parametrize(
    ("interval", "better", "finding"),
    [
        (Interval(-0.01, -0.03, 0.01, 400, 400), "higher", "no worse"),
        (Interval(0.01, -0.01, 0.03, 400, 400), "lower", "no worse"),
        (Interval(-0.01, -0.06, 0.04, 50, 50), "higher", "cannot say"),
        (Interval(-0.2, -0.25, -0.15, 400, 400), "higher", "worse"),
        (Interval(0.0, -0.03, 0.03, 400, 20, conservative=(-0.2, 0.2)), "higher", "cannot say"),
        (Interval(-0.03, -0.05, -0.01, 400, 400), "higher", "cannot say"),  # the limit itself is not inside
    ],
)
def test_no_worse_is_said_only_inside_the_margin(interval: Interval, better: str, finding: str) -> None:
    found = non_inferiority(interval, margin=0.05, better=better)  # type: ignore[arg-type]
    assert found.finding == finding
    assert found.level == pytest.approx(0.025)


def test_non_inferiority_is_the_one_sided_test_and_its_margin_is_named() -> None:
    rng = np.random.default_rng(6)
    for _ in range(200):
        before, after = rng.random(60), rng.random(60) + 0.1 * rng.random()
        scaled = np.concatenate([before, after]) / 1.2
        found = clustered_difference(scaled[:60].tolist(), scaled[60:].tolist(), range(60))
        judged = non_inferiority(found, margin=0.1)
        p = stats.ttest_1samp(scaled[60:] - scaled[:60], -0.1, alternative="greater").pvalue
        assert (judged.finding == "no worse") == (p < 0.025)
        if judged.largest_loss > 0:
            assert non_inferiority(found, margin=judged.largest_loss + 1e-9).finding == "no worse"
    for wrong in (0.0, -0.1, 1.5):
        with pytest.raises(InputError, match="margin"):
            non_inferiority(found, margin=wrong)


def test_a_perfect_judge_leaves_the_rate_and_a_blind_one_leaves_nothing() -> None:
    perfect, blind = JudgeErrors(10**6, 10**6, 10**6, 10**6), JudgeErrors(100, 52, 100, 50)
    for k in (0, 3, 100, 250):
        plain = stats.beta(k + 1, 250 - k + 1).ppf([0.025, 0.975])
        found = corrected_rate(k / 250, 250, perfect)
        assert found.estimate == pytest.approx(k / 250)
        assert (found.low, found.high) == pytest.approx(
            (0 if k == 0 else plain[0], 1 if k == 250 else plain[1]), abs=0.004
        )
        assert (corrected_rate(k / 250, 250, blind).low, corrected_rate(k / 250, 250, blind).high) == (0, 1)
    table = PairedTable(20, 80, 10, 390)
    found = corrected_difference(table, perfect, perfect)
    plain_difference = newcombe_of_table(table)
    assert (found.low, found.high) == pytest.approx((plain_difference.low, plain_difference.high), abs=0.01)
    assert (corrected_difference(table, perfect, blind).low, corrected_difference(table, blind, perfect).high) == (
        -1,
        1,
    )


def test_errors_that_differ_between_arms_can_make_or_hide_a_difference() -> None:
    """The same observed rates: with a judge that clears fewer of the edited model's replies, the truth is lower."""
    table = PairedTable(50, 50, 50, 350)
    good, lax = JudgeErrors(2000, 1900, 2000, 1960), JudgeErrors(2000, 1900, 2000, 1760)
    assert not corrected_difference(table, good, good).excludes(0)
    assert corrected_difference(table, good, lax).high < 0
    assert corrected_difference(table, lax, good).low > 0


def test_errors_are_counts_that_can_be() -> None:
    errors = JudgeErrors(50, 45, 80, 76)
    assert (errors.sensitivity, errors.specificity) == (0.9, 0.95)
    assert errors.mirrored().mirrored() == errors
    assert JudgeErrors.from_json(errors.to_json(), where="x") == errors
    for wrong in ((50, 51, 80, 76), (50, -1, 80, 76), (0, 0, 80, 76), (50, 45, 0, 0)):
        with pytest.raises(InputError, match="judge"):
            JudgeErrors(*wrong)
    with pytest.raises(InputError, match="'found'"):
        JudgeErrors.from_json(errors.to_json() | {"found": "45"}, where="the file")


def test_wilson_covers_over_all_rates_and_sizes() -> None:
    """Exact, not simulated: the chance of every count times whether its interval holds the rate."""
    covered = []
    for n in SIZES:
        limits = np.array([[wilson(k, n).low, wilson(k, n).high] for k in range(n + 1)])
        for rate in RATES:
            holds = (limits[:, 0] <= rate) & (rate <= limits[:, 1])
            covered.append(float(stats.binom.pmf(np.arange(n + 1), n, rate) @ holds))
    assert 0.94 < np.mean(covered) < 0.965
    assert min(covered) > 0.89


def _cells(rate: float, rng: np.random.Generator) -> tuple[NDArray[np.float64], float]:
    """Return the chances of both, undone, newly, neither [4] and the difference; pairs agree more than by chance."""
    after = float(np.clip(rate + rng.uniform(-0.15, 0.15), 0.01, 0.99))
    both = rate * after + rng.random() * (min(rate, after) - rate * after)
    return np.array([both, rate - both, after - both, 1 - rate - after + both]).clip(0), after - rate


@pytest.mark.prove
def test_newcombe_covers_over_all_rates_and_sizes() -> None:
    rng = np.random.default_rng(11)
    covered = []
    for n, rate in itertools.product(SIZES, RATES):
        for _ in range(20):
            cells, truth = _cells(rate, rng)
            found = [newcombe_of_table(PairedTable(*row)) for row in rng.multinomial(n, cells, 25).tolist()]
            covered.append(np.mean([one.low <= truth <= one.high for one in found]))
    assert 0.94 < np.mean(covered) < 0.965


@pytest.mark.prove
def test_clustered_intervals_cover_over_all_rates_and_sizes() -> None:
    rng = np.random.default_rng(12)
    rates, differences = [], []
    for n, rate in itertools.product((50, 200, 1000), RATES[::2]):
        clusters = np.arange(n) // 5
        for _ in range(30):
            topic = rng.beta(4 * rate, 4 * (1 - rate), n // 5)[clusters]  # correlation 0.2
            before = (rng.random(n) < topic).astype(float)
            turned = rng.random(n) < 0.2
            after = np.where(turned, 0.0, before)
            one = clustered_rate(before.tolist(), clusters.tolist()).widest()
            other = clustered_difference(before.tolist(), after.tolist(), clusters.tolist())
            rates.append(one[0] <= rate <= one[1])
            low, high = other.widest()
            differences.append(low <= -0.2 * rate <= high)
    assert 0.94 < np.mean(rates) < 0.98  # exact at heart: it leans to the safe side
    assert 0.93 < np.mean(differences) < 0.97


@pytest.mark.prove
@pytest.mark.parametrize(("sensitivity", "specificity"), [(0.9, 0.92), (0.75, 0.97), (0.97, 0.8)])
def test_corrected_rates_cover(sensitivity: float, specificity: float) -> None:
    rng = np.random.default_rng(13)
    corrected, plain = [], []
    for n, rate, n_labels in itertools.product((50, 200, 1000), RATES[::4], (60, 300)):
        for _ in range(12):
            errors = JudgeErrors(
                n_labels, int(rng.binomial(n_labels, sensitivity)), n_labels, int(rng.binomial(n_labels, specificity))
            )
            seen = rng.binomial(n, rate * sensitivity + (1 - rate) * (1 - specificity))
            found = corrected_rate(seen / n, n, errors)
            corrected.append(found.low <= rate <= found.high)
            naive = wilson(int(seen), n)
            plain.append(naive.low <= rate <= naive.high)
    assert 0.94 < np.mean(corrected) < 0.98
    assert np.mean(plain) < 0.8  # the control: without the correction they miss


@pytest.mark.prove
def test_corrected_differences_cover_with_errors_of_their_own_per_arm() -> None:
    rng = np.random.default_rng(14)
    skills = ((0.92, 0.95), (0.85, 0.9))
    corrected, plain = [], []
    for n, rate, n_labels in itertools.product((50, 200, 1000), RATES[::4], (100, 400)):
        for _ in range(24):
            cells, truth = _cells(rate, rng)
            pairs = rng.choice(4, p=cells / cells.sum(), size=n)
            true_events = np.stack([pairs <= 1, (pairs == 0) | (pairs == 2)])
            chance = [np.where(events, se, 1 - sp) for events, (se, sp) in zip(true_events, skills, strict=True)]
            before, after = (rng.random(n) < one for one in chance)
            errors = [
                JudgeErrors(n_labels, int(rng.binomial(n_labels, se)), n_labels, int(rng.binomial(n_labels, sp)))
                for se, sp in skills
            ]
            table = PairedTable.of(before.tolist(), after.tolist())
            found = corrected_difference(table, *errors)
            corrected.append(found.low <= truth <= found.high)
            naive = newcombe_of_table(table)
            plain.append(naive.low <= truth <= naive.high)
    assert 0.94 < np.mean(corrected) < 0.98
    assert np.mean(plain) < 0.9
