"""Selects the implementation of the loops: C if the extension was built, otherwise numpy."""

import importlib
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from . import portable


class Loops(Protocol):
    """Loops over the elements of flat, contiguous arrays; they release the GIL while they run."""

    def scatter(self, places: NDArray[Any], values: NDArray[np.float32], at: int, out: NDArray[np.float32]) -> int:
        """Write sparse entries to the dense array `out`, with zeros for all other elements.

        Args:
            places: [m] int32 rising indices of the entries, the first at least `at`; entries with an index of `at + n`
                or more are not used.
            values: [m] fp32 values of the entries.
            at: index of the first element of `out` in the whole tensor.
            out: [n] fp32, output.

        Returns:
            Number of entries used; -1 if the indices do not rise or one is below `at`.
        """
        ...

    def gather(self, delta: NDArray[np.float32], at: int, places: NDArray[Any], values: NDArray[np.float32]) -> int:
        """Write the indices and the values of the non-zero elements; return their number.

        Args:
            delta: [n] fp32.
            at: index of the first element of `delta` in the whole tensor.
            places: [n] int32, output: indices of the non-zero elements; the rest of the array is undefined.
            values: [n] fp32, output: their values; the rest of the array is undefined.
        """
        ...

    def difference(
        self, left: NDArray[Any], right: NDArray[Any], delta: NDArray[np.float32], is_bf16: bool
    ) -> tuple[float, float, float, float]:
        """Write fl32(right - left) to `delta`; return <left, left>, <left, right>, <right, right>, <delta, delta>.

        Args:
            left: [n] fp32, or uint16 with the bits of bf16.
            right: [n], of the same dtype.
            delta: [n] fp32, output.
            is_bf16: whether `left` and `right` hold bf16.
        """
        ...

    def count_window(self, delta: NDArray[np.float32], low: int, counts: NDArray[np.uint32]) -> int:
        """Add a histogram of magnitudes to `counts`; return how many magnitudes are above its range.

        A magnitude is the bit pattern of an fp32 number without its sign; `counts` has one bin per bit pattern.

        Args:
            delta: [n] fp32.
            low: magnitude of the first bin; smaller magnitudes are not counted.
            counts: [m] uint32, updated.
        """
        ...

    def keep(self, delta: NDArray[np.float32], threshold: int, n_ties: int, out: NDArray[np.float32]) -> int:
        """Copy the elements with a magnitude above `threshold`, and the first `n_ties` that equal it, to `out`.

        Args:
            delta: [n] fp32.
            threshold: bit pattern of a magnitude (fp32 without its sign).
            n_ties: largest number of elements with exactly that magnitude to keep.
            out: [n] fp32, output: kept elements, zero elsewhere.

        Returns:
            Number of kept elements whose magnitude equals the threshold.
        """
        ...


def _native() -> Any:
    try:
        return importlib.import_module(".native", __package__)
    except ImportError:  # there was no compiler when the package was installed
        return None


native: Any = _native()
loops: Loops = cast(Loops, native or portable)
