"""Rates as they would be without the judge's own errors, with what is not known of these errors in the interval."""

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
    """What a judge said of replies whose truth is known.

    Attributes:
        n_events, found: replies with the event, and how many of them the judge found.
        n_others, cleared: replies without it, and how many of them the judge cleared.

    Raises:
        InputError: counts that cannot be, or no labelled reply of one of the two sorts.
    """

    n_events: int
    found: int
    n_others: int
    cleared: int

    def __post_init__(self) -> None:
        if not (0 <= self.found <= self.n_events and 0 <= self.cleared <= self.n_others):
            raise InputError(f"a judge should find at most all events and clear at most all others, found {self}")
        if not (self.n_events and self.n_others):
            raise InputError(f"a judge's errors need labelled replies with and without the event, found {self}")

    @property
    def sensitivity(self) -> float:
        """Share of the events that the judge found."""
        return self.found / self.n_events

    @property
    def specificity(self) -> float:
        """Share of the others that the judge cleared."""
        return self.cleared / self.n_others

    @property
    def skills(self) -> tuple[float, float]:
        """Sensitivity and specificity."""
        return self.sensitivity, self.specificity

    def mirrored(self) -> "JudgeErrors":
        """Return the errors for the opposite event."""
        return JudgeErrors(self.n_others, self.cleared, self.n_events, self.found)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON, the counts only."""
        return {
            "n_events": self.n_events,
            "found": self.found,
            "n_others": self.n_others,
            "cleared": self.cleared,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any], *, where: str) -> "JudgeErrors":
        """Return the errors that a JSON object holds.

        Raises:
            InputError: a count is missing, no whole number, or cannot be.
        """
        names = ("n_events", "found", "n_others", "cleared")
        for name in names:
            if not isinstance(row.get(name), int) or isinstance(row.get(name), bool):
                raise InputError(f"{where} should have a whole number under {name!r}, found {row.get(name)!r}")
        return cls(*(row[name] for name in names))

    def draws(self, generator: np.random.Generator) -> tuple[Floats, Floats]:
        """Return sensitivities and specificities that these counts allow, [N_DRAWS] each (uniform prior)."""
        sensitivity = generator.beta(self.found + 1, self.n_events - self.found + 1, N_DRAWS)
        specificity = generator.beta(self.cleared + 1, self.n_others - self.cleared + 1, N_DRAWS)
        return sensitivity, specificity


def corrected_rate(rate: float, size: float, errors: JudgeErrors, *, confidence: float = 0.95) -> Interval:
    """Return the rate that a judge without errors would have found.

    The estimate is (rate - (1 - specificity)) / (sensitivity + specificity - 1), cut to [0, 1]; the interval is made of
    draws of the rate and of both errors. Where the judge may be no better than chance it is the whole range.
    Source: Rogan and Gladen 1978, American Journal of Epidemiology 107, 71-76; each part drawn given its counts, with
    a uniform prior.

    Args:
        rate: share of replies of which the judge said that they have the event.
        size: number of independent replies (the effective number, where they come in clusters).
        errors: of the judge, on replies like these.
        confidence: nominal coverage.

    Example:
        >>> found = corrected_rate(0.14, 500, JudgeErrors(200, 180, 200, 184))
        >>> round(found.estimate, 3), found.low < 0.073 < found.high
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
    """Return the difference of two corrected rates of paired replies, each corrected with its own errors.

    The limits of both rates are joined as in Newcombe's method, with the correlation of their draws. Errors that are
    equal are taken as one measurement, the same for both. Source: Zou and Donner 2008, Statistics in Medicine 27,
    1693-1702 (MOVER).

    Args:
        table: counts of pairs as the judge saw them; they need not be whole.
        before: errors on the reference's replies. after: on the other system's.
        confidence: nominal coverage.

    Example:
        >>> errors = JudgeErrors(200, 180, 200, 184)
        >>> found = corrected_difference(PairedTable(20, 80, 10, 390), errors, errors)
        >>> round(found.estimate, 3), found.low < -0.14 < found.high
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
    """Return the rate without errors; a judge no better than chance tells nothing, which the caller sees to."""
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
