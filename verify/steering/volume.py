"""How much of the space of rewards a set of points covers, and how well rewards follow what was asked for.

The hypervolume is exact for any number of attributes: the exclusive part of each point, found by the hypervolume of
the others cut off at it (While, Bradstreet and Barone 2012, IEEE Transactions on Evolutionary Computation 16, 86-95).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prosocial.editing.errors import InputError

Floats = NDArray[np.float64]


def hypervolume(points: Sequence[Sequence[float]] | Floats, reference: Sequence[float] | Floats) -> float:
    """Return the volume between a reference point and the points [n, k] above it; more is better on every axis.

    Raises:
        InputError: shapes differ, or a number is not finite.

    Example:
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
    return _volume(heights[(heights > 0).all(1)])


def mean_inner_product(preferences: Sequence[Sequence[float]], points: Sequence[Sequence[float]] | Floats) -> float:
    """Return the mean over the grid of `p . r(p)` (PARM's MIP), for preferences [n, k] and rewards [n, k].

    Example:
        >>> mean_inner_product([[1.0, 0.0], [0.0, 1.0]], [[0.8, 0.1], [0.2, 0.6]])
        0.7
    """
    return float((np.asarray(preferences) * np.asarray(points)).sum(1).mean())


def _volume(heights: Floats) -> float:
    """Return the volume under points [n, k], measured from 0."""
    if not len(heights):
        return 0.0
    if heights.shape[1] == 1:
        return float(heights.max())
    front = _undominated(heights)
    front = front[np.argsort(-front[:, -1], kind="stable")]
    if front.shape[1] == 2:
        widths = np.maximum.accumulate(front[:, 0])  # the higher a point, the earlier it comes
        return float((widths * (front[:, 1] - np.append(front[1:, 1], 0.0))).sum())
    total = 0.0
    for index, point in enumerate(front):  # what is left of the last axis below a point is cut off with it
        total += float(point.prod()) - _volume(np.minimum(front[index + 1 :], point))
    return total


def _undominated(points: Floats) -> Floats:
    """Return the points [m, k] that no other point reaches on every axis, equal ones once."""
    unique = np.unique(points, axis=0)
    reached = (unique[None] >= unique[:, None]).all(-1)  # [n, n] whether the second reaches the first
    front: Floats = unique[reached.sum(1) == 1]
    return front
