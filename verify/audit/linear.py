"""Linear programs in one to four unknowns, solved by the randomised incremental algorithm.

Seidel 1991, Small-dimensional linear programming and convex hulls made easy. Constraints are added one by one. If the
optimum so far violates a constraint, that constraint is tight at the new optimum, which leaves a linear program with
one unknown less.
"""

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
TINY = 1e-11  # tolerance on constraints, in units of the unknowns
FLAT = 1e-13  # a coefficient below this counts as 0


def maximise(direction: Vector, rows: Vector, limits: Vector, low: Vector, high: Vector) -> Vector | None:
    """Return the x [k] that maximises `direction @ x` with `rows @ x <= limits` and `low <= x <= high`, if any.

    Args:
        direction: [k] objective.
        rows: [m, k] constraints, each of norm 1.
        limits: [m] upper limits of the constraints.
        low: [k] lower bounds.
        high: [k] upper bounds.

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
        solution = _on_the_plane(direction, rows[: at + 1], limits[: at + 1], low, high)
        if solution is None:
            return None
        best, at = solution, at + 1


def _on_the_plane(direction: Vector, rows: Vector, limits: Vector, low: Vector, high: Vector) -> Vector | None:
    """Solve with the last constraint tight: the unknown with its largest coefficient is expressed by the others."""
    plane, limit = rows[-1], limits[-1]
    out = int(np.argmax(np.abs(plane)))
    if abs(plane[out]) < FLAT:
        return None
    rest = np.arange(len(plane)) != out
    slope, offset = -plane[rest] / plane[out], limit / plane[out]
    inner = np.vstack([rows[:-1][:, rest] + np.outer(rows[:-1, out], slope), slope, -slope])
    ends = np.concatenate([limits[:-1] - rows[:-1, out] * offset, [high[out] - offset, offset - low[out]]])
    inner_solution = _solve(direction[rest] + direction[out] * slope, inner, ends, low[rest], high[rest])
    if inner_solution is None:
        return None
    whole = np.empty(len(plane))
    whole[rest], whole[out] = inner_solution, offset + slope @ inner_solution
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
