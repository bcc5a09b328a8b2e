"""Which loops there are: those in C where they were built, else those in numpy."""

import importlib
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from . import portable


class Loops(Protocol):
    """Loops over the elements of flat, contiguous arrays; they let other threads run."""

    def scatter(self, places: NDArray[Any], values: NDArray[np.float32], at: int, out: NDArray[np.float32]) -> int:
        """Write sparse entries to `out` [n] fp32, zeros between.

        Args:
            places: int32, where the entries belong, from `at` on; those from `at + n` on are left.
            values: as many, fp32.
            at: place of the first element of `out`.
            out: written.

        Returns:
            How many entries were used; -1 where their places do not rise from `at` on.
        """
        ...

    def gather(self, delta: NDArray[np.float32], at: int, places: NDArray[Any], values: NDArray[np.float32]) -> int:
        """Write places (int32 [n]) and values (fp32 [n]) of the elements that are not zero; return their number.

        Args:
            delta: [n] fp32.
            at: place of its first element.
            places, values: written; what is behind the last entry means nothing.
        """
        ...

    def difference(
        self, left: NDArray[Any], right: NDArray[Any], delta: NDArray[np.float32], is_bf16: bool
    ) -> tuple[float, float, float, float]:
        """Write fl32(right - left) to `delta`; return <left, left>, <left, right>, <right, right>, <delta, delta>.

        Args:
            left, right: [n] fp32, or uint16 as the bits of bf16.
            delta: [n] fp32, written.
            is_bf16: which of the two they are.
        """
        ...

    def count_window(self, delta: NDArray[np.float32], low: int, counts: NDArray[np.uint32]) -> int:
        """Count magnitudes, as the bits of fp32 without the sign, from `low` on; return how many are above all counts.

        Args:
            delta: [n] fp32.
            low: the magnitude of the first count.
            counts: [m] uint32, added to.
        """
        ...

    def keep(self, delta: NDArray[np.float32], threshold: int, n_ties: int, out: NDArray[np.float32]) -> int:
        """Write the elements with a magnitude above `threshold`, and the first `n_ties` that equal it, to `out`.

        Args:
            delta: [n] fp32.
            threshold: the bits of a magnitude.
            n_ties: how many of those that equal it may stay.
            out: [n] fp32, written; zero where an element does not stay.

        Returns:
            How many of the equal ones stayed.
        """
        ...


def _native() -> Any:
    try:
        return importlib.import_module(".native", __package__)
    except ImportError:  # no compiler when the package was installed
        return None


native: Any = _native()
loops: Loops = cast(Loops, native or portable)
