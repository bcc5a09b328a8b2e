"""Reliability of predicted probabilities: how often the predicted event happened, in bins of equal size."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prosocial.core.errors import InputError

from ..statistics.interval import Interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin: the mean prediction, the share of events with its interval, and the number of positions."""

    predicted: float
    observed: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Reliability:
    """How well predictions of one event agree with what happened.

    Attributes:
        name: name of the event.
        error: expected calibration error: the mean over bins of |predicted - observed|, weighted by the bins' sizes.
            Noise within bins adds to it, so that it is above 0 for a perfect predictor too.
        bias: mean of predicted - observed; above 0 the predictions are too high.
        bins: from low to high predictions.
    """

    name: str
    error: Interval
    bias: float
    bins: tuple[ReliabilityBin, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        bins = [dict(vars(one)) for one in self.bins]
        return {"name": self.name, "error": self.error.to_json(), "bias": self.bias, "bins": bins}


def measure_reliability(
    predicted: ArrayLike,
    observed: ArrayLike,
    groups: Sequence[int] | NDArray[np.int64],
    *,
    name: str = "",
    n_bins: int = 15,
    draws: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Reliability:
    """Return the reliability of predictions, with percentile intervals of a bootstrap over groups.

    Args:
        predicted: [N] probabilities.
        observed: [N] 0 or 1, or the probability of the event given all that is known afterwards.
        groups: [N] the reply of each position; whole replies are drawn, because positions of one reply are correlated.
        name: name of the event.
        n_bins: bins of equal size (Nixon et al. 2019, arXiv 1904.01685), the same in all draws.
        draws: bootstrap draws. seed: of the draws. confidence: nominal coverage.

    Raises:
        InputError: nothing is given, lengths differ, or a value lies outside [0, 1].

    Examples:
        >>> found = measure_reliability([0.0, 0.0, 0.5, 0.5], [0, 0, 0, 1], [0, 1, 2, 3], n_bins=2)
        >>> found.error.estimate, [(one.predicted, one.observed) for one in found.bins]
        (0.0, [(0.0, 0.0), (0.5, 0.5)])
    """
    p, y = np.asarray(predicted, dtype=np.float64), np.asarray(observed, dtype=np.float64)
    members = np.unique(np.asarray(groups), return_inverse=True)[1]
    if not (len(p) == len(y) == len(members) > 0):
        raise InputError(f"each prediction needs an outcome and a group, found {len(p)}, {len(y)} and {len(members)}")
    if not (np.isfinite(p) & np.isfinite(y) & (p >= 0) & (p <= 1) & (y >= 0) & (y <= 1)).all():
        raise InputError("predictions and outcomes should lie in [0, 1], some do not")
    at = _equal_mass(p, n_bins)
    sums = _sums(p, y, members, at)  # [G, 3, B]
    n_groups, tail = len(sums), (1 - confidence) / 2
    generator = np.random.Generator(np.random.PCG64(seed))
    drawn = np.stack([_drawn(sums, generator.integers(n_groups, size=n_groups)) for _ in range(draws)])  # [D, 3, B]
    low, high = np.quantile(_errors(drawn), [tail, 1 - tail])
    total = sums.sum(0)
    with np.errstate(invalid="ignore"):
        rates = np.nanquantile(drawn[:, 1] / drawn[:, 2], [tail, 1 - tail], axis=0)
    bins = zip(*(total[:2] / total[2]), *rates, total[2], strict=True)
    method = "bootstrap over replies"
    return Reliability(
        name=name,
        error=Interval(float(_errors(total)), float(low), float(high), len(p), n_groups, confidence, method),
        bias=float(p.mean() - y.mean()),
        bins=tuple(ReliabilityBin(float(a), float(b), float(c), float(d), int(n)) for a, b, c, d, n in bins),
    )


def _equal_mass(predicted: Floats, n_bins: int) -> NDArray[np.intp]:
    """Return the bin [N] of each prediction, as many in each."""
    at = np.empty(len(predicted), dtype=np.intp)
    order = np.argsort(predicted, kind="stable")
    for index, rows in enumerate(np.array_split(order, min(n_bins, len(predicted)))):
        at[rows] = index
    return at


def _sums(predicted: Floats, observed: Floats, members: NDArray[np.intp], at: NDArray[np.intp]) -> Floats:
    """Return [G, 3, B]: predictions, outcomes and positions, added up by group and bin."""
    n_bins = int(at.max()) + 1
    cell, shape = members * n_bins + at, (int(members.max()) + 1, n_bins)
    weights = (predicted, observed, np.ones_like(predicted))
    parts = [np.bincount(cell, weights=w, minlength=shape[0] * shape[1]).reshape(shape) for w in weights]
    return np.stack(parts, axis=1)


def _drawn(sums: Floats, chosen: NDArray[np.int64]) -> Floats:
    """Return [3, B]: the sums over groups drawn with replacement."""
    times = np.bincount(chosen, minlength=len(sums)).astype(np.float64)
    drawn: Floats = (times @ sums.reshape(len(sums), -1)).reshape(sums.shape[1:])
    return drawn


def _errors(sums: Floats) -> Floats:
    """Return [...]: the expected calibration error of sums [..., 3, B]."""
    errors: Floats = np.abs(sums[..., 0, :] - sums[..., 1, :]).sum(-1) / sums[..., 2, :].sum(-1)
    return errors
