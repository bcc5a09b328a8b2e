"""Check that a shaped delta does not point against the raw delta that it was made from (torch-free)."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from prosocial.core.errors import InputError

from ...checkpoints.numbers import LOOP_ELEMENTS
from ...kernels.loops import loops
from .runs import Array

NEAR_ZERO = 1e-4  # cosines below this are computed again in float64, because their sign matters


@dataclass(frozen=True)
class Direction:
    """Measures of a shaped delta.

    Attributes:
        norm: Euclidean norm of the shaped delta.
        cosine: cosine between the shaped and the raw delta, in [0, 1]; None if one of the two is zero.
        n_zeros: number of elements that are zero.
    """

    norm: float
    cosine: float | None
    n_zeros: int


class Products:
    """Inner products between a shaped delta and the raw one, accumulated piece by piece."""

    def __init__(self) -> None:
        self._total, self._scratch = np.zeros(3), np.empty(LOOP_ELEMENTS, np.float32)

    def add(self, shaped: Array, raw: Array) -> None:
        """Add a piece of at most `LOOP_ELEMENTS` elements."""
        self._total += loops.difference(shaped, raw, self._scratch[: len(raw)], False)[:3]

    @property
    def finite(self) -> bool:
        """Whether all elements of both deltas were finite."""
        return math.isfinite(self._total.sum())

    @property
    def size(self) -> float:
        """Product of the two norms."""
        return math.sqrt(self._total[0] * self._total[2])

    @property
    def along(self) -> float:
        """Inner product of the two deltas."""
        return float(self._total[1])

    def direction(self, name: str, *, n_zeros: int, along: float | None = None) -> Direction:
        """Return the measures of the shaped delta.

        Args:
            name: name of the tensor, for messages.
            n_zeros: number of elements of the shaped delta that are zero.
            along: a more accurate inner product of the two deltas, if the caller has one.

        Raises:
            InputError: the shaped delta is not finite, or its inner product with the raw one is below 0.
        """
        square, along = float(self._total[0]), self.along if along is None else along
        if not math.isfinite(square):
            raise InputError(f"the shaped delta of {name} should be finite, found NaN or infinity: use another method")
        if not along >= 0:
            raise InputError(
                f"a method should keep the direction of every delta, it reversed {name} (inner product {along:g}); use "
                "another method"
            )
        return Direction(square**0.5, min(1.0, along / self.size) if self.size else None, n_zeros)


def compare(name: str, shaped: Array, raw: Array) -> Direction:
    """Return the measures of a shaped delta relative to the raw one.

    Args:
        name: name of the tensor, for messages.
        shaped: the shaped delta, fp32.
        raw: the raw delta, fp32, of the same shape.

    Raises:
        InputError: the shaped delta is not finite, or its inner product with the raw one is below 0.
    """
    products, n_zeros = Products(), 0
    for at in range(0, raw.size, LOOP_ELEMENTS):
        piece = shaped.reshape(-1)[at : at + LOOP_ELEMENTS]
        products.add(piece, raw.reshape(-1)[at : at + LOOP_ELEMENTS])
        n_zeros += len(piece) - int(np.count_nonzero(piece != 0))
    along = products.along
    if along < NEAR_ZERO * products.size:
        along = float(np.vdot(shaped.astype(np.float64), raw.astype(np.float64)))
    return products.direction(name, n_zeros=n_zeros, along=along)


def check_finite(name: str, pieces: Iterable[Array]) -> None:
    """Check that a delta is finite.

    Args:
        name: name of the tensor, for messages.
        pieces: the delta in pieces.

    Raises:
        InputError: elements are NaN or infinite.
    """
    n_bad = 0
    for piece in pieces:
        with np.errstate(all="ignore"):
            quick = math.isfinite(float(piece.sum()))  # a finite sum proves that all elements are finite
        n_bad += 0 if quick else piece.size - int(np.count_nonzero(np.isfinite(piece)))
    if n_bad:
        raise InputError(
            f"the difference of {name} should be finite, found {n_bad} NaN or infinite elements; repair the parents"
        )
