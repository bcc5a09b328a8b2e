"""How a shaped delta stands to the raw one that it came from: a method may never turn it round (torch-free)."""

import math
from dataclasses import dataclass

import numpy as np

from ..checkpoints.numbers import LOOP_ELEMENTS
from ..errors import InputError
from ..kernels.loops import loops
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


def compare(name: str, shaped: Array, raw: Array) -> Direction:
    """Relate a shaped delta to the raw one.

    Raises:
        InputError: the shaped delta is not finite, or turned round: their inner product is below 0.
    """
    square, along, raw_square = _products(shaped.reshape(-1), raw.reshape(-1))
    if not math.isfinite(square):
        raise InputError(f"the shaped delta of {name} should be finite, found NaN or infinity: use another method")
    size = (square * raw_square) ** 0.5
    if along < NEAR_ZERO * size:
        along = float(np.vdot(shaped.astype(np.float64), raw.astype(np.float64)))
    if not along >= 0:
        raise InputError(
            f"a method should keep the direction of every delta, it turned {name} round; use another method"
        )
    return Direction(square**0.5, min(1.0, along / size) if size else None, shaped.size - _count_others(shaped))


def _products(shaped: Array, raw: Array) -> tuple[float, float, float]:
    """Return <shaped, shaped>, <shaped, raw> and <raw, raw>."""
    total, scratch = np.zeros(3), np.empty(min(LOOP_ELEMENTS, len(raw)), np.float32)
    for at in range(0, len(raw), LOOP_ELEMENTS):
        pair = shaped[at : at + LOOP_ELEMENTS], raw[at : at + LOOP_ELEMENTS]
        total += loops.difference(*pair, scratch[: len(pair[0])], False)[:3]
    square, along, raw_square = total.tolist()
    return square, along, raw_square


def _count_others(delta: Array) -> int:
    """Return the number of elements that are not zero."""
    flat = delta.reshape(-1)
    pieces = (flat[at : at + LOOP_ELEMENTS] for at in range(0, len(flat), LOOP_ELEMENTS))
    return sum(int(np.count_nonzero(piece != 0)) for piece in pieces)
