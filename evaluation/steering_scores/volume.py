"""Hypervolume and mean inner product: the reward space covered, and how well rewards follow preferences.

The hypervolume is exact for any number of attributes. It is the sum of each point's exclusive contribution relative to
the points above it on the last axis, computed recursively with one axis less (While, Bradstreet and Barone 2012, IEEE
Transactions on Evolutionary Computation 16, 86-95).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prosocial.core.errors import InputError

Floats = NDArray[np.float64]


def hypervolume(points: Sequence[Sequence[float]] | Floats, reference: Sequence[float] | Floats) -> float:
    """Return the hypervolume of points [n, k] above a reference point [k]; larger is better on every axis.

    Raises:
        InputError: shapes differ, or a number is not finite.

    Examples:
        >>> hypervolume([[2.0, 1.0], [1.0, 2.0]], [0.0, 0.0])
        3.0
    """
    given, origin = np.asarray(points, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    fits = given.ndim == 2 and origin.shape == given.shape[1:]
    if not (fits and np.isfinite(given).all() and np.isfinite(origin).all()):
        raise InputError(
            f"a hypervolume should have finite points [n, k] and a reference [k], found shapes {given.shape} and "
            f"{origin.shape}"
        )
    heights = np.clip(given - origin, 0.0, None)
    above = heights[(heights > 0).all(1)]
    return _volume(above) if len(above) else 0.0


def mean_inner_product(preferences: Sequence[Sequence[float]], points: Sequence[Sequence[float]] | Floats) -> float:
    """Return the mean of `p . r(p)` over a grid (PARM's MIP), for preferences [n, k] and rewards [n, k].

    Examples:
        >>> mean_inner_product([[1.0, 0.0], [0.0, 1.0]], [[0.8, 0.1], [0.2, 0.6]])
        0.7
    """
    return float((np.asarray(preferences) * np.asarray(points)).sum(1).mean())


def _volume(heights: Floats) -> float:
    """Return the volume under points [n, k], measured from 0."""
    if heights.shape[1] == 1 or len(heights) == 1:
        return float(heights.prod(1).max())
    if heights.shape[1] == 2:
        return _area(heights)
    front = _undominated(heights)
    front = front[np.argsort(front[:, -1], kind="stable")]
    total = 0.0
    for index, point in enumerate(front):  # later points are at least as high on the last axis
        side, rest = point[:-1], front[index + 1 :, :-1]
        covered = _volume(np.minimum(rest, side)) if len(rest) else 0.0
        total += float(point[-1]) * (float(side.prod()) - covered)
    return total


def _area(heights: Floats) -> float:
    """Return the area under the staircase of points [n, 2]."""
    steps = heights[np.argsort(-heights[:, 1], kind="stable")]
    widths = np.maximum.accumulate(steps[:, 0])
    return float((widths * (steps[:, 1] - np.append(steps[1:, 1], 0.0))).sum())


def _undominated(points: Floats) -> Floats:
    """Return the unique points [m, k] that no other point dominates."""
    unique = np.unique(points, axis=0)
    reached = (unique[None] >= unique[:, None]).all(-1)  # [n, n] whether the second reaches the first
    front: Floats = unique[reached.sum(1) == 1]
    return front
