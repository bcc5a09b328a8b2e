"""The arithmetics that may have computed `base + weight * delta`: how products and sums were rounded.

Each rule is monotone in the weight for every element, because rounding is monotone. So the weights that reproduce a
stored element bit for bit form an interval of fp32 numbers, which bisection finds exactly.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from prosocial.editing.checkpoints.numbers import PIECE_ELEMENTS, STORED
from prosocial.editing.edits.arithmetic import PieceSubtraction
from prosocial.editing.edits.rounding import round_nearest


class Rule(Protocol):
    """One arithmetic, for tensors of one dtype."""

    @property
    def title(self) -> str:
        """The name of the rounding, in words."""

    def predict(self, base: NDArray[np.float32], delta: NDArray[np.float32], weight: float) -> NDArray[np.float32]:
        """Return [n] `base + weight * delta` rounded to the dtype, as fp32; valid until the next call.

        Args:
            base: [n] fp32 elements of the base.
            delta: [n] fp32 elements of the delta.
            weight: an fp32 number; below 0 if the vector was subtracted.
        """


class RoundedOnce:
    """Product and sum in fp32, then one rounding to the dtype: this package, and mergekit with `dtype: float32`."""

    title = "fp32, rounded once"

    def __init__(self, dtype: str) -> None:
        self._subtraction = PieceSubtraction(dtype)

    def predict(self, base: NDArray[np.float32], delta: NDArray[np.float32], weight: float) -> NDArray[np.float32]:
        """See `Rule`."""
        self._subtraction.apply(base, delta, -weight)
        return self._subtraction.out


class RoundedProduct:
    """The product is rounded to the dtype before the sum, as in peft's merge."""

    title = "product rounded to the tensor's dtype"

    def __init__(self, dtype: str) -> None:
        self._subtraction = PieceSubtraction(dtype)
        self._stored, self._scratch = np.empty(PIECE_ELEMENTS, STORED[dtype]), np.empty(PIECE_ELEMENTS, np.uint32)
        self._product = np.empty(PIECE_ELEMENTS, np.float32)

    def predict(self, base: NDArray[np.float32], delta: NDArray[np.float32], weight: float) -> NDArray[np.float32]:
        """See `Rule`."""
        product = self._product[: len(base)]
        with np.errstate(all="ignore"):
            np.multiply(delta, np.float32(weight), out=product)
        self._round(product)
        self._subtraction.apply(base, product, -1.0)
        return self._subtraction.out

    def _round(self, values: NDArray[np.float32]) -> None:
        with np.errstate(all="ignore"):
            round_nearest(values, self._stored[: len(values)], self._scratch[: len(values)])


class RoundedDelta(RoundedProduct):
    """Delta and product are rounded to the dtype before the sum, as in mergekit with the checkpoint's own dtype."""

    title = "delta and product rounded to the tensor's dtype"

    def __init__(self, dtype: str) -> None:
        super().__init__(dtype)
        self._delta = np.empty(PIECE_ELEMENTS, np.float32)

    def predict(self, base: NDArray[np.float32], delta: NDArray[np.float32], weight: float) -> NDArray[np.float32]:
        """See `Rule`."""
        rounded = self._delta[: len(base)]
        np.copyto(rounded, delta)
        self._round(rounded)
        return super().predict(base, rounded, weight)


class Fused:
    """Product and sum with one rounding to fp32, a fused multiply-add, then one rounding to the dtype."""

    title = "fp32 with a fused multiply-add"

    def __init__(self, dtype: str) -> None:
        self._stored, self._scratch = np.empty(PIECE_ELEMENTS, STORED[dtype]), np.empty(PIECE_ELEMENTS, np.uint32)

    def predict(self, base: NDArray[np.float32], delta: NDArray[np.float32], weight: float) -> NDArray[np.float32]:
        """See `Rule`."""
        n = len(base)
        product = delta.astype(np.float64) * np.float64(weight)  # exact: 24 by 24 bits fit into 53
        with np.errstate(all="ignore"):
            out: NDArray[np.float32] = _sum_to_odd(base.astype(np.float64), product).astype(np.float32)
            round_nearest(out, self._stored[:n], self._scratch[:n])
        return out


def _sum_to_odd(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add with rounding to odd, so that a second rounding gives the same result as rounding the exact sum.

    Boldo and Melquiond 2008, Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd.
    """
    total = left + right
    part = total - left
    lost = (left - (total - part)) + (right - part)
    even = (total.view(np.uint64) & np.uint64(1)) == 0
    towards = np.where(lost > 0, np.inf, -np.inf)
    odd: NDArray[np.float64] = np.where((lost != 0) & even, np.nextafter(total, towards), total)
    return odd


RULES: tuple[Callable[[str], Rule], ...] = (RoundedOnce, RoundedProduct, RoundedDelta, Fused)


def rules_for(dtype: str) -> list[Rule]:
    """Return the rules that are distinct for a dtype; for F32, rounding to the dtype changes nothing."""
    chosen: Any = (RoundedOnce, Fused) if dtype == "F32" else RULES
    return [rule(dtype) for rule in chosen]
