"""Editing one piece of a tensor and measuring the change: one C loop if it is built, otherwise numpy (torch-free)."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.numbers import LOOP_ELEMENTS, PIECE_ELEMENTS, STORED, dot
from ..kernels.loops import native
from .arithmetic import PieceSubtraction
from .rounding import NEAREST, Rounding

BITS: dict[int, Any] = {2: np.uint16, 4: np.uint32}


class PieceSums(NamedTuple):
    """Counts and sums that measure the edit of a piece; sums are accurate to about seven digits.

    If an element of the piece is not finite, one of the sums is not finite either.

    Attributes:
        n_moving: number of elements whose delta is not zero.
        n_changed: number of elements whose stored value changed.
        along: inner product <out - target, delta>.
        delta_square: squared norm of the delta.
        change_square: squared norm of the stored change, out - target.
        target_square: squared norm of the target.
        error_square: squared norm of the stored change minus the requested one.
    """

    n_moving: int
    n_changed: int
    along: float
    delta_square: float
    change_square: float
    target_square: float
    error_square: float


class PieceEdit:
    """Edits a tensor piece by piece, in buffers that are re-used.

    Args:
        dtype: dtype of the checkpoint's tensor: F32, F16 or BF16.
        rounding: rounding mode of the result.
        portable: use numpy even if the C loop is built. The result is the same; sums may differ in the last digits.

    Attributes:
        n_elements: length of the longest piece.
    """

    def __init__(self, dtype: str, rounding: Rounding = NEAREST, *, portable: bool = False) -> None:
        self._is_bf16 = dtype == "BF16"
        self._native = None if portable or dtype == "F16" or rounding.stochastic else native
        self.n_elements = LOOP_ELEMENTS if self._native else PIECE_ELEMENTS
        if self._native:
            self._out = np.empty(self.n_elements, STORED[dtype])
        else:
            self._subtraction = PieceSubtraction(dtype, rounding=rounding)

    def apply(
        self, target: NDArray[Any], delta: NDArray[np.float32], coefficient: float, *, key: str = "", at: int = 0
    ) -> tuple[NDArray[Any], PieceSums]:
        """Return the edited piece, valid until the next call, and its sums; arguments: see `PieceSubtraction.apply`."""
        if self._native:
            out = self._out[: len(target)]
            return out, PieceSums(*self._native.edit(target, delta, coefficient, out, self._is_bf16))
        out = self._subtraction.apply(target, delta, coefficient, key=key, at=at)
        return out, _sums(self._subtraction, target, delta)


def _sums(piece: PieceSubtraction, before: NDArray[Any], delta: NDArray[np.float32]) -> PieceSums:
    """Return the sums of the piece that was subtracted last; its buffers `product` and `out` are overwritten."""
    bits = BITS[piece.stored.itemsize]
    with np.errstate(all="ignore"):
        change = np.subtract(piece.out, piece.target, out=piece.out)
        error = np.add(change, piece.product, out=piece.product)
        return PieceSums(
            n_moving=int(np.count_nonzero(delta != 0)),
            n_changed=int(np.count_nonzero(piece.stored.view(bits) != before.view(bits))),
            along=dot(change, delta),
            delta_square=dot(delta, delta),
            change_square=dot(change, change),
            target_square=dot(piece.target, piece.target),
            error_square=dot(error, error),
        )
