"""The weights of one to four vectors that explain a tensor within rounding: a polytope bounded by a few elements.

Each element confines the sum of `weight * delta` to an interval. Of millions of elements, a few hundred bound the
polytope: elements violated by its extreme points are added as constraints until none is violated. Leaving out the
others can only enlarge the polytope, so the true weights are never excluded.
"""

import numpy as np
from numpy.typing import NDArray

from .exact import Bounds
from .intervals import Tolerance
from .linear import maximise
from .pieces import Piece

BOX = 16.0  # weights are sought in [-BOX, BOX]
FIRST_ELEMENTS, MAX_ROUNDS = 1 << 11, 60
TOUCHING = 1e-9  # in units of a weight: a constraint violated by less counts as satisfied


class Polytope:
    """Intersects the weights that a tolerance allows, piece by piece.

    Args:
        tolerance: bound on the rounding errors.
        dtype: dtype of the tensor.
        n_vectors: number of unknown weights.
        delta_errors: [n_vectors] largest absolute error of an element of each delta.
    """

    needs_confirmation = True

    def __init__(self, tolerance: Tolerance, dtype: str, n_vectors: int, delta_errors: NDArray[np.float64]) -> None:
        self._tolerance, self._dtype, self._delta_errors = tolerance, dtype, delta_errors
        self._rows = np.empty((0, n_vectors))
        self._ends = np.empty(0)  # limits of `row @ weights`, without the part that depends on the largest weights
        self._sizes = np.empty((0, n_vectors))  # how much a unit of each weight's magnitude widens the limit
        self._corners = np.vstack([np.full((1, n_vectors), sign * BOX) for sign in (1, -1)])
        self._largest = np.full(n_vectors, BOX)

    @property
    def title(self) -> str:
        """The name of the tolerance."""
        return self._tolerance.title

    def narrow(self, piece: Piece) -> bool:
        """Keep only the weights that also explain this piece; return False if none are left."""
        if not len(self._rows) and len(piece) > FIRST_ELEMENTS:
            step = -(-len(piece) // FIRST_ELEMENTS)
            if not self.narrow(piece.take(slice(0, None, step))):
                return False
        elements = _Elements(piece, self._tolerance, self._dtype, self._delta_errors)
        for _ in range(MAX_ROUNDS):
            rows, ends, sizes = elements.broken(np.vstack([self._corners, self.weights]), self._largest)
            if not len(rows):
                return True
            self._rows = np.vstack([self._rows, rows])
            self._ends, self._sizes = np.concatenate([self._ends, ends]), np.vstack([self._sizes, sizes])
            if not self._solve():
                return False
        return True

    def misfits(self, piece: Piece, weights: list[float]) -> NDArray[np.bool_]:
        """Return [n], True where the weights do not explain the stored element."""
        elements = _Elements(piece, self._tolerance, self._dtype, self._delta_errors)
        return elements.misfits(np.array(weights))

    def predict(self, piece: Piece, weights: list[float]) -> NDArray[np.float32]:
        """Return [n], the elements that the weights give, not yet rounded to the tensor's dtype."""
        out: NDArray[np.float32] = (piece.base + np.array(weights) @ piece.deltas).astype(np.float32)
        return out

    @property
    def weights(self) -> list[float]:
        """Weights in the middle of the polytope."""
        return [float(each) for each in self._corners.mean(axis=0)]

    @property
    def bounds(self) -> list[Bounds]:
        """The interval of each weight; infinite where unbounded."""
        ends = zip(self._corners.min(axis=0), self._corners.max(axis=0), strict=True)
        return [(float(low) if low > -BOX else -np.inf, float(high) if high < BOX else np.inf) for low, high in ends]

    def _solve(self) -> bool:
        """Recompute the extreme points; return False if the polytope is empty."""
        n_vectors = self._rows.shape[1]
        ends = self._ends + self._sizes @ self._largest
        box = np.full(n_vectors, BOX)
        extremes = [
            maximise(direction, self._rows, ends, -box, box)
            for axis in np.eye(n_vectors)
            for direction in (axis, -axis)
        ]
        corners = [each for each in extremes if each is not None]
        if len(corners) < len(extremes):
            return False
        self._corners = np.array(corners)
        self._largest = np.minimum(self._largest, np.abs(self._corners).max(axis=0) * (1 + TOUCHING) + TOUCHING)
        return True


class _Elements:
    """A piece as linear constraints, scaled so that rows have norm 1 and distances are in units of a weight."""

    def __init__(self, piece: Piece, tolerance: Tolerance, dtype: str, delta_errors: NDArray[np.float64]) -> None:
        low, high, relative = tolerance.limits(piece, dtype)
        deltas = piece.deltas.astype(np.float64)
        norms = np.sqrt(np.einsum("kn,kn->n", deltas, deltas))
        scale = np.where(norms > 0, norms, np.finfo(np.float32).tiny)
        self._rows = deltas / scale
        self._sizes = relative * np.abs(self._rows) + delta_errors[:, None] / scale
        self._low, self._high = low / scale, high / scale

    def misfits(self, weights: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return [n], True where the weights violate the constraint."""
        sums, room = weights @ self._rows, np.abs(weights) @ self._sizes
        wrong: NDArray[np.bool_] = (sums > self._high + room) | (sums < self._low - room)
        return wrong

    def broken(
        self, points: NDArray[np.float64], largest: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return the constraints that each point violates most: rows [m, k], limits [m] and sizes [m, k]."""
        sums, room = points @ self._rows, largest @ self._sizes
        rows, ends, sizes = [], [], []
        for over, sign, end in ((sums - self._high, 1, self._high), (self._low - sums, -1, self._low)):
            worst = np.unique(np.argmax(over - room, axis=1))
            for column in worst[(over[:, worst] - room[worst]).max(axis=0) > TOUCHING]:
                rows.append(sign * self._rows[:, column])
                ends.append(sign * end[column])
                sizes.append(self._sizes[:, column])
        k = len(self._rows)
        return np.array(rows).reshape(-1, k), np.array(ends), np.array(sizes).reshape(-1, k)
