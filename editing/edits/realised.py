"""What an edit really did to a tensor, after rounding: bf16 swallows small changes (torch-free)."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.numbers import dot
from ..errors import InputError
from .arithmetic import PieceSubtraction

BITS: dict[int, Any] = {2: np.uint16, 4: np.uint32}


@dataclass
class Realised:
    """Sums over one tensor, piece by piece.

    Attributes:
        coefficient: what the delta was multiplied with, above 0.
        n_moving: number of elements with a delta.
        n_changed: number of elements whose stored value changed.
        along: <out - target, delta>.
        delta_square, change_square, target_square, error_square: squared norms of the delta, of the stored change, of
            the target, and of the stored change less the asked one (the last in F32 alone, where the others would
            cancel).
    """

    coefficient: float
    n_moving: int = 0
    n_changed: int = 0
    along: float = 0.0
    delta_square: float = 0.0
    change_square: float = 0.0
    target_square: float = 0.0
    error_square: float | None = None

    def add(self, piece: PieceSubtraction, before: NDArray[Any], delta: NDArray[np.float32]) -> None:
        """Count a piece just subtracted; its buffers of target, product and result are used up.

        Args:
            piece: the arithmetic, after its `apply`.
            before: [n] the target as stored.
            delta: [n] fp32.
        """
        with np.errstate(all="ignore"):
            self.n_moving += int(np.count_nonzero(delta != 0))
            bits = BITS[piece.stored.itemsize]
            self.n_changed += int(np.count_nonzero(piece.stored.view(bits) != before.view(bits)))
            self.target_square += dot(piece.target, piece.target)
            self.delta_square += dot(delta, delta)
            change = np.subtract(piece.out, piece.target, out=piece.out)
            self.along += dot(change, delta)
            self.change_square += dot(change, change)
            if piece.dtype == "F32":
                error = np.add(change, piece.product, out=piece.product)
                self.error_square = (self.error_square or 0.0) + dot(error, error)

    @property
    def finite(self) -> bool:
        """Whether all elements of target, delta and result were finite: one that is not spoils the sums."""
        return math.isfinite(self.change_square + self.target_square + self.delta_square)

    @property
    def inner_product(self) -> float:
        """<out - target, delta>: never above 0."""
        return self.along

    @property
    def gain(self) -> float | None:
        """Projection of the stored change on the asked one, over its length: 1 if nothing was lost."""
        return -self.along / (self.coefficient * self.delta_square) if self.delta_square else None

    @property
    def cosine(self) -> float | None:
        """Cosine between the stored change and the asked one; None where nothing changed."""
        size = math.sqrt(self.change_square) * math.sqrt(self.delta_square)
        return min(1.0, -self.along / size) if size else None

    @property
    def relative_error(self) -> float | None:
        """Norm of the stored change less the asked one, over the norm of the asked one."""
        asked = self.coefficient**2 * self.delta_square
        if not asked:
            return None
        error = self.error_square
        if error is None:
            error = max(0.0, self.change_square + 2 * self.coefficient * self.along + asked)
        return math.sqrt(error / asked)

    @property
    def unchanged_share(self) -> float | None:
        """Share of the elements with a delta that rounding left as they were; None where no element has one."""
        return max(0, self.n_moving - self.n_changed) / self.n_moving if self.n_moving else None

    @property
    def relative_change(self) -> float | None:
        """Norm of the change over the norm of the tensor; None where that is zero."""
        return math.sqrt(self.change_square / self.target_square) if self.target_square else None


def require_subtraction(inner_product: float) -> None:
    """Check that an edit moved against its vector.

    Raises:
        InputError: `<out - target, tau>` is above 0 or no number.
    """
    if not inner_product <= 0:
        raise InputError(
            f"an edit should move against the harm vector, <out - target, tau> <= 0, found {inner_product}: "
            "the files changed meanwhile, or memory is faulty; nothing was written"
        )
