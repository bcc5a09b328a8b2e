"""How a shaped delta stands to the raw one that it came from: a method may never turn it round (torch-free)."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from prosocial.core.errors import InputError

from ...checkpoints.numbers import LOOP_ELEMENTS
from ...kernels.loops import loops
from .runs import Array

NEAR_ZERO = 1e-4  # a cosine that is decided in float64


@dataclass(frozen=True)
class Direction:
    """What is known of a shaped delta.

    Attributes:
        norm: Euclidean norm.
        cosine: to the raw delta, from 0 to 1; None where one of the two is zero.
        n_zeros: number of elements that are zero.
    """

    norm: float
    cosine: float | None
    n_zeros: int


class Products:
    """Inner products of a shaped delta and the raw one, piece by piece."""

    def __init__(self) -> None:
        self._total, self._scratch = np.zeros(3), np.empty(LOOP_ELEMENTS, np.float32)

    def add(self, shaped: Array, raw: Array) -> None:
        """Count a piece of at most `LOOP_ELEMENTS`."""
        self._total += loops.difference(shaped, raw, self._scratch[: len(raw)], False)[:3]

    @property
    def finite(self) -> bool:
        """Whether all elements were finite."""
        return math.isfinite(self._total.sum())

    @property
    def size(self) -> float:
        """Product of the two norms."""
        return math.sqrt(self._total[0] * self._total[2])

    @property
    def along(self) -> float:
        """Inner product of the two."""
        return float(self._total[1])

    def direction(self, name: str, *, n_zeros: int, along: float | None = None) -> Direction:
        """Return what is known, with the inner product `along` where it was computed better.

        Raises:
            InputError: the shaped delta is not finite, or turned round: their inner product is below 0.
        """
        square, along = float(self._total[0]), self.along if along is None else along
        if not math.isfinite(square):
            raise InputError(f"the shaped delta of {name} should be finite, found NaN or infinity: use another method")
        if not along >= 0:
            raise InputError(
                f"a method should keep the direction of every delta, it turned {name} round; use another method"
            )
        return Direction(square**0.5, min(1.0, along / self.size) if self.size else None, n_zeros)


def compare(name: str, shaped: Array, raw: Array) -> Direction:
    """Relate a shaped delta to the raw one.

    Raises:
        InputError: the shaped delta is not finite, or turned round.
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
    """Check the pieces of a delta.

    Raises:
        InputError: elements are NaN or infinite.
    """
    n_bad = 0
    for piece in pieces:
        with np.errstate(all="ignore"):
            quick = math.isfinite(float(piece.sum()))  # a sum with NaN or infinity in it is not
        n_bad += 0 if quick else piece.size - int(np.count_nonzero(np.isfinite(piece)))
    if n_bad:
        raise InputError(
            f"the difference of {name} should be finite, found {n_bad} NaN or infinite elements; repair the parents"
        )
