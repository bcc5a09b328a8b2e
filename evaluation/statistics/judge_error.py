"""Rates corrected for the judge's errors, with intervals that include the uncertainty of the error rates."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosocial.core.errors import InputError

from .interval import Interval
from .paired import PairedTable, square_and_add

Floats = NDArray[np.float64]
N_DRAWS = 20_000
SEED = 20140801
METHOD = "Rogan-Gladen, draws"


@dataclass(frozen=True)
class JudgeErrors:
    """Confusion counts of a judge on replies with known labels.

    Attributes:
        n_events: number of replies with the event.
        found: how many of those the judge detected (true positives).
        n_others: number of replies without the event.
        cleared: how many of those the judge did not flag (true negatives).

    Raises:
        InputError: the counts are inconsistent, or there is no reply with, or none without, the event.
    """

    n_events: int
    found: int
    n_others: int
    cleared: int

    def __post_init__(self) -> None:
        if not (0 <= self.found <= self.n_events and 0 <= self.cleared <= self.n_others):
            raise InputError(f"a judge's found and cleared should be at most n_events and n_others, found {self}")
        if not (self.n_events and self.n_others):
            raise InputError(f"a judge should be measured on replies with and without the event, found {self}")

    @property
    def sensitivity(self) -> float:
        """Share of the replies with the event that the judge detected."""
        return self.found / self.n_events

    @property
    def specificity(self) -> float:
        """Share of the replies without the event that the judge did not flag."""
        return self.cleared / self.n_others

    @property
    def skills(self) -> tuple[float, float]:
        """Sensitivity and specificity."""
        return self.sensitivity, self.specificity

    def mirrored(self) -> "JudgeErrors":
        """Return the counts for the complementary event."""
        return JudgeErrors(self.n_others, self.cleared, self.n_events, self.found)

    def to_json(self) -> dict[str, Any]:
        """Return the counts as plain JSON."""
        return {
            "n_events": self.n_events,
            "found": self.found,
            "n_others": self.n_others,
            "cleared": self.cleared,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any], *, where: str) -> "JudgeErrors":
        """Return the counts in a JSON object.

        Raises:
            InputError: a count is missing, not an integer, or inconsistent with the others.
        """
        names = ("n_events", "found", "n_others", "cleared")
        for name in names:
            if not isinstance(row.get(name), int) or isinstance(row.get(name), bool):
                raise InputError(f"{where} should have an integer {name!r}, found {row.get(name)!r}")
        return cls(*(row[name] for name in names))

    def draws(self, generator: np.random.Generator) -> tuple[Floats, Floats]:
        """Return posterior draws of sensitivity and specificity, [N_DRAWS] each (uniform prior)."""
        sensitivity = generator.beta(self.found + 1, self.n_events - self.found + 1, N_DRAWS)
        specificity = generator.beta(self.cleared + 1, self.n_others - self.cleared + 1, N_DRAWS)
        return sensitivity, specificity


def corrected_rate(rate: float, size: float, errors: JudgeErrors, *, confidence: float = 0.95) -> Interval:
    """Return the rate that a judge without errors would report.

    The estimate is (rate - (1 - specificity)) / (sensitivity + specificity - 1), clipped to [0, 1]. The interval is
    from posterior draws of the rate, the sensitivity and the specificity, with uniform priors. If the judge may be no
    better than chance, it is the whole range.
    Source: Rogan and Gladen 1978, American Journal of Epidemiology 107, 71-76.

    Args:
        rate: share of replies in which the judge detected the event.
        size: number of independent replies (the effective sample size for clustered replies).
        errors: confusion counts of the judge on comparable replies.
        confidence: nominal coverage.

    Examples:
        >>> rate = corrected_rate(0.14, 500, JudgeErrors(200, 180, 200, 184))
        >>> round(rate.estimate, 3), rate.low < 0.073 < rate.high
        (0.073, True)
    """
    generator = np.random.Generator(np.random.PCG64(SEED))
    observed = generator.beta(rate * size + 1, (1 - rate) * size + 1, N_DRAWS)
    sensitivity, specificity = errors.draws(generator)
    estimate = float(np.clip(_true_rate(rate, *errors.skills), 0.0, 1.0))
    draws = np.clip(_true_rate(observed, sensitivity, specificity), 0.0, 1.0)
    whole = _is_blind(sensitivity, specificity, confidence)
    return _interval(estimate, draws, (0.0, 1.0), size, confidence, whole=whole)


def corrected_difference(
    table: PairedTable, before: JudgeErrors, after: JudgeErrors, *, confidence: float = 0.95
) -> Interval:
    """Return the difference of two rates of paired replies, each corrected for its own judge errors.

    The limits of both rates are combined as in Newcombe's method, with the correlation of their draws. If `before` and
    `after` are equal, they count as one measurement that applies to both. Source: Zou and Donner 2008, Statistics in
    Medicine 27, 1693-1702 (MOVER).

    Args:
        table: counts of pairs by the judge's results; they need not be integers.
        before: confusion counts on the reference's replies.
        after: confusion counts on the other system's replies.
        confidence: nominal coverage.

    Examples:
        >>> errors = JudgeErrors(200, 180, 200, 184)
        >>> difference = corrected_difference(PairedTable(20, 80, 10, 390), errors, errors)
        >>> round(difference.estimate, 3), difference.low < -0.14 < difference.high
        (-0.146, True)
    """
    generator = np.random.Generator(np.random.PCG64(SEED))
    cells = generator.dirichlet(np.array(table) + 0.5, N_DRAWS)
    old = before.draws(generator)
    new = old if after == before else after.draws(generator)
    if _is_blind(*old, confidence) or _is_blind(*new, confidence):
        return _interval(0.0, np.zeros(1), (-1.0, 1.0), table.n, confidence, whole=True)
    arms, drawn = [], []
    for events, column, errors, skills in ((table.undone, 1, before, old), (table.newly, 2, after, new)):
        rate = float(np.clip(_true_rate((table.both + events) / table.n, *errors.skills), 0.0, 1.0))
        drawn.append(_true_rate(cells[:, 0] + cells[:, column], *skills))
        arms.append(_interval(rate, np.clip(drawn[-1], 0.0, 1.0), (0.0, 1.0), table.n, confidence, whole=False))
    cross = table.both * table.neither - table.undone * table.newly
    kept = max(cross - table.n / 2, 0.0) / cross if cross > 0 else 0.0  # Newcombe's correction, as in `newcombe`
    correlation = kept * max(0.0, float(np.corrcoef(*drawn)[0, 1]))
    low, high = square_and_add(arms[1], arms[0], correlation)
    return Interval(arms[1].estimate - arms[0].estimate, low, high, int(table.n), int(table.n), confidence, METHOD)


def _true_rate(rate: Any, sensitivity: Any, specificity: Any) -> Any:
    """Return the corrected rate; the caller handles judges that are no better than chance."""
    skill = np.maximum(sensitivity + specificity - 1, 1e-9)
    return (rate - (1 - specificity)) / skill


def _is_blind(sensitivity: Floats, specificity: Floats, confidence: float) -> bool:
    return bool(np.mean(sensitivity + specificity <= 1) > (1 - confidence) / 2)


def _interval(
    estimate: float, draws: Floats, bounds: tuple[float, float], size: float, confidence: float, *, whole: bool
) -> Interval:
    tail = (1 - confidence) / 2
    low, high = bounds if whole else (float(limit) for limit in np.quantile(draws, [tail, 1 - tail]))
    return Interval(estimate, min(low, estimate), max(high, estimate), int(size), int(size), confidence, METHOD)
