"""The weights of one to four vectors that explain a tensor within rounding: a polytope, cut by its tightest elements.

An element confines the sum of `weight * delta` to an interval. A few hundred of millions of elements bound the
polytope: those that its outermost points break are added as constraints until none is broken. Leaving others out can
only make it larger, so that the true weights are never cut off.
"""

import numpy as np
from numpy.typing import NDArray

from .exact import Bounds
from .intervals import Tolerance
from .linear import maximise
from .pieces import Piece

BOX = 16.0  # weights are sought in [-BOX, BOX]
FIRST_ELEMENTS, MAX_ROUNDS = 1 << 11, 60
TOUCHING = 1e-9  # of a weight: constraints nearer than this are held


class Polytope:
    """Intersects, piece by piece, what a tolerance allows.

    Args:
        tolerance: what may have been lost to rounding.
        dtype: of the tensor.
        n_vectors: number of unknown weights.
        delta_errors: [n_vectors] largest absolute error of an element of each delta.
    """

    needs_confirmation = True

    def __init__(self, tolerance: Tolerance, dtype: str, n_vectors: int, delta_errors: NDArray[np.float64]) -> None:
        self._tolerance, self._dtype, self._delta_errors = tolerance, dtype, delta_errors
        self._rows = np.empty((0, n_vectors))
        self._ends = np.empty(0)  # of `row @ weights`, less what depends on the largest weights
        self._sizes = np.empty((0, n_vectors))  # what a unit of each weight's size widens the end by
        self._corners = np.vstack([np.full((1, n_vectors), sign * BOX) for sign in (1, -1)])
        self._largest = np.full(n_vectors, BOX)

    @property
    def title(self) -> str:
        """What may have been lost."""
        return self._tolerance.title

    def narrow(self, piece: Piece) -> bool:
        """Keep the weights that explain the piece too; False if there are none."""
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
        """Return [n], True where weights do not explain the stored element."""
        elements = _Elements(piece, self._tolerance, self._dtype, self._delta_errors)
        return elements.misfits(np.array(weights))

    def predict(self, piece: Piece, weights: list[float]) -> NDArray[np.float32]:
        """Return [n], what the weights give, not yet rounded to the tensor's dtype."""
        out: NDArray[np.float32] = (piece.base + np.array(weights) @ piece.deltas).astype(np.float32)
        return out

    @property
    def weights(self) -> list[float]:
        """Weights that explain all constraints, in the middle."""
        return [float(each) for each in self._corners.mean(axis=0)]

    @property
    def bounds(self) -> list[Bounds]:
        """Ends of each weight; infinite where nothing bounds it."""
        ends = zip(self._corners.min(axis=0), self._corners.max(axis=0), strict=True)
        return [(float(low) if low > -BOX else -np.inf, float(high) if high < BOX else np.inf) for low, high in ends]

    def _solve(self) -> bool:
        """Find the outermost points again."""
        n_vectors = self._rows.shape[1]
        ends = self._ends + self._sizes @ self._largest
        box = np.full(n_vectors, BOX)
        found = [
            maximise(direction, self._rows, ends, -box, box)
            for axis in np.eye(n_vectors)
            for direction in (axis, -axis)
        ]
        corners = [each for each in found if each is not None]
        if len(corners) < len(found):
            return False
        self._corners = np.array(corners)
        self._largest = np.minimum(self._largest, np.abs(self._corners).max(axis=0) * (1 + TOUCHING) + TOUCHING)
        return True


class _Elements:
    """A piece as constraints, scaled so that each row has norm 1 and all distances are in units of a weight."""

    def __init__(self, piece: Piece, tolerance: Tolerance, dtype: str, delta_errors: NDArray[np.float64]) -> None:
        low, high, relative = tolerance.limits(piece, dtype)
        deltas = piece.deltas.astype(np.float64)
        norms = np.sqrt(np.einsum("kn,kn->n", deltas, deltas))
        scale = np.where(norms > 0, norms, np.finfo(np.float32).tiny)
        self._rows = deltas / scale
        self._sizes = relative * np.abs(self._rows) + delta_errors[:, None] / scale
        self._low, self._high = low / scale, high / scale

    def misfits(self, weights: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return [n], True where weights lie outside."""
        sums, room = weights @ self._rows, np.abs(weights) @ self._sizes
        wrong: NDArray[np.bool_] = (sums > self._high + room) | (sums < self._low - room)
        return wrong

    def broken(
        self, points: NDArray[np.float64], largest: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return the constraints that each point breaks most: rows [m, k], ends [m] and sizes [m, k]."""
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
