"""The interval of real numbers that round to a stored element, and bounds on the rounding errors before that."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .pieces import Piece

FP32_UNIT = 2.0**-24
UNITS = {"BF16": 2.0**-8, "F16": 2.0**-11, "F32": FP32_UNIT}  # largest relative error of a rounding to nearest ...
SMALLEST = {"BF16": 2.0**-134, "F16": 2.0**-25, "F32": 2.0**-150}  # ... and the largest absolute one near zero
MARGIN = 1.01  # safety factor for second-order errors and those of float64


def rounding_interval(stored: NDArray[np.float32], dtype: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of the closed interval of numbers that round to each element.

    Args:
        stored: [n] finite numbers that are exact in the dtype.
        dtype: F32, F16 or BF16.

    >>> low, high = rounding_interval(np.ones(1, np.float32), "BF16")
    >>> float(low[0]), float(high[0])
    (0.998046875, 1.00390625)
    """
    values = stored.astype(np.float64)
    if dtype == "BF16":
        size = stored.view(np.uint32) & np.uint32(0x7FFFFFFF)
        outer = (size + np.uint32(0x8000)).view(np.float32).astype(np.float64)
        inner = np.where(size >= 0x8000, size - np.uint32(0x8000), 0).astype(np.uint32).view(np.float32)
        negative, zero = stored < 0, size == 0
        low = np.where(negative | zero, -outer, inner)
        return low, np.where(negative, -inner.astype(np.float64), outer)
    kind: Any = np.float16 if dtype == "F16" else np.float32
    narrow = stored.astype(kind)
    below, above = (np.nextafter(narrow, kind(end)).astype(np.float64) for end in (-np.inf, np.inf))
    return (values + below) / 2, (values + above) / 2


@dataclass(frozen=True)
class Tolerance:
    """A bound on the rounding errors of an unrecorded arithmetic before its last rounding.

    Attributes:
        title: name of the tolerance, in words.
        steps: whether each product and sum may have been rounded to the tensor's dtype, rather than only to fp32.
    """

    title: str
    steps: bool

    def limits(self, piece: Piece, dtype: str) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """Return the bounds [n] on the sum of `weight * delta`, and the relative error of each product.

        The relative error applies to `|weight * delta|` of each vector and widens the interval further.
        """
        low, high = rounding_interval(piece.model, dtype)
        base, n_vectors = piece.base.astype(np.float64), len(piece.deltas)
        size = np.maximum(np.abs(base), np.maximum(np.abs(low), np.abs(high)))
        lost = n_vectors * FP32_UNIT * size + (n_vectors + 1) * SMALLEST["F32"]
        relative = (n_vectors + 1) * FP32_UNIT
        if self.steps:
            lost += (n_vectors - 1) * UNITS[dtype] * size + 3 * n_vectors * SMALLEST[dtype]
            relative += (n_vectors + 2) * UNITS[dtype]
        return low - base - MARGIN * lost, high - base + MARGIN * lost, MARGIN * relative


TOLERANCES = (
    Tolerance("fp32 in any order", steps=False),
    Tolerance("rounded to the tensor's dtype at any step", steps=True),
)
