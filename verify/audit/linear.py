"""Linear programs in one to four unknowns, by the randomised incremental method.

Seidel 1991, Small-dimensional linear programming and convex hulls made easy. Constraints enter one by one; one that the
optimum so far breaks holds with equality at the new optimum, which is a program with one unknown less.
"""

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
TINY = 1e-11  # in the unit of the unknowns
FLAT = 1e-13


def maximise(direction: Vector, rows: Vector, limits: Vector, low: Vector, high: Vector) -> Vector | None:
    """Return [k] unknowns x, largest along a direction, with `rows @ x <= limits` and `low <= x <= high`, or None.

    Args:
        direction: [k].
        rows: [m, k], each of norm 1.
        limits: [m].
        low, high: [k] ends of a box.

    >>> square = maximise(np.ones(2), np.array([[0.6, 0.8]]), np.ones(1), np.zeros(2), np.ones(2))
    >>> [round(float(each), 6) for each in square]
    [1.0, 0.5]
    """
    order = np.random.default_rng(0).permutation(len(rows))
    return _solve(direction, rows[order], limits[order], low, high)


def _solve(direction: Vector, rows: Vector, limits: Vector, low: Vector, high: Vector) -> Vector | None:
    if len(direction) == 1:
        return _on_a_line(direction, rows[:, 0], limits, low[0], high[0])
    best = np.where(direction > 0, high, low)
    at = 0
    while True:
        broken = np.flatnonzero(rows[at:] @ best > limits[at:] + TINY)
        if not len(broken):
            return best
        at += int(broken[0])
        found = _on_the_plane(direction, rows[: at + 1], limits[: at + 1], low, high)
        if found is None:
            return None
        best, at = found, at + 1


def _on_the_plane(direction: Vector, rows: Vector, limits: Vector, low: Vector, high: Vector) -> Vector | None:
    """Solve with the last constraint as an equation: the unknown that it weighs most is written by the others."""
    plane, limit = rows[-1], limits[-1]
    out = int(np.argmax(np.abs(plane)))
    if abs(plane[out]) < FLAT:
        return None
    rest = np.arange(len(plane)) != out
    slope, offset = -plane[rest] / plane[out], limit / plane[out]
    inner = np.vstack([rows[:-1][:, rest] + np.outer(rows[:-1, out], slope), slope, -slope])
    ends = np.concatenate([limits[:-1] - rows[:-1, out] * offset, [high[out] - offset, offset - low[out]]])
    found = _solve(direction[rest] + direction[out] * slope, inner, ends, low[rest], high[rest])
    if found is None:
        return None
    whole = np.empty(len(plane))
    whole[rest], whole[out] = found, offset + slope @ found
    return whole


def _on_a_line(direction: Vector, slopes: Vector, limits: Vector, low: float, high: float) -> Vector | None:
    flat = np.abs(slopes) < FLAT
    if (limits[flat] < -TINY).any():
        return None
    ends = limits[~flat] / slopes[~flat]
    low = max(low, float(ends[slopes[~flat] < 0].max(initial=-np.inf)))
    high = min(high, float(ends[slopes[~flat] > 0].min(initial=np.inf)))
    if low > high + TINY:
        return None
    return np.array([high if direction[0] > 0 else low])
