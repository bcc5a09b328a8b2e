"""Selecting exactly the n largest elements by magnitude without sorting (torch-free).

The bit pattern of an fp32 number without its sign, read as an integer, orders finite numbers by magnitude. A sample
gives a narrow window of bit patterns that should contain the n-th largest magnitude. One pass over all elements then
counts how often each pattern in the window occurs, and how many elements are above the window.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...checkpoints.numbers import LOOP_ELEMENTS
from ...kernels.loops import loops

LOW_BITS = 16
N_BINS = 1 << 15  # a bin holds all magnitudes with the same high 15 bits; they differ by at most 0.4 to 0.8 %
HALF_WINDOW = 2  # number of bins in the window on each side of the bin that the sample gives
T = TypeVar("T")
Pieces = Callable[[str], Iterable[Sequence[NDArray[np.float32]]]]


def keep_largest_of(delta: NDArray[np.float32], n_keep: int) -> NDArray[np.float32]:
    """Return a delta with its `n_keep` largest elements by magnitude, zero elsewhere; of ties the first are kept.

    Examples:
        >>> keep_largest_of(np.array([1.0, -3.0, 2.0], np.float32), 2).tolist()
        [0.0, -3.0, 2.0]
    """
    if n_keep <= 0:
        return np.zeros_like(delta)
    (threshold,) = find_thresholds({"delta": delta.size}, lambda name: [[delta.reshape(-1)]], n_keep)
    return threshold.keep("delta", delta)


@dataclass(frozen=True)
class Threshold:
    """The smallest magnitude that is kept in a vector.

    Attributes:
        magnitude: bit pattern of that magnitude (fp32 without its sign).
        n_ties: number of elements with exactly that magnitude that are kept, by tensor name; 0 for other tensors.
    """

    magnitude: int
    n_ties: Mapping[str, int]

    def keep(self, name: str, delta: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a tensor's delta (fp32, any shape) with zeros for the elements that are not kept."""
        kept = np.empty(delta.size, np.float32)
        keep = self.keeper(name)
        for at in range(0, delta.size, LOOP_ELEMENTS):
            piece = slice(at, at + LOOP_ELEMENTS)
            keep(delta.reshape(-1)[piece], kept[piece])
        return kept.reshape(delta.shape)

    def keeper(self, name: str) -> Callable[[NDArray[np.float32], NDArray[np.float32]], None]:
        """Return a function that applies the threshold to the pieces of a tensor.

        The function is called with each piece in order and an output array of the same length.
        """
        left = self.n_ties.get(name, 0)

        def keep(piece: NDArray[np.float32], out: NDArray[np.float32]) -> None:
            nonlocal left
            left -= loops.keep(piece, self.magnitude, left, out)

        return keep


def find_thresholds(sizes: dict[str, int], read: Pieces, n_keep: int) -> list[Threshold]:
    """Return for each of several vectors the threshold that keeps exactly its `n_keep` largest elements.

    Of elements with equal magnitude the first are kept, in the order of `sizes` and then of positions.

    Args:
        sizes: number of elements by tensor name, the same for all vectors.
        read: function from a tensor name to its pieces; a piece is a list with one array [n] fp32 for each vector. It
            is called one or more times for each name, from several threads.
        n_keep: number of elements to keep in each vector, at least 1.
    """
    windows = _count_windows(sizes, read, _guess(sizes, read, n_keep, sample=True))
    if not all(window.holds(n_keep) for window in windows):
        windows = _count_windows(sizes, read, _guess(sizes, read, n_keep, sample=False))
    return [window.find(n_keep, sizes) for window in windows]


class _Window:
    """How often each magnitude in a range of bins occurs, in total and by tensor, and how many elements are above."""

    def __init__(self, top: int) -> None:
        first, last = max(0, top - HALF_WINDOW), min(N_BINS - 1, top + HALF_WINDOW)
        self.low, self.n_above = first << LOW_BITS, 0
        self._counts = np.zeros(last + 1 - first << LOW_BITS, np.int64)
        self._by_name: dict[str, tuple[NDArray[Any], NDArray[np.uint32]]] = {}  # occurring magnitudes and their counts

    def empty(self) -> NDArray[np.uint32]:
        """Return a zero array for the counts of one tensor."""
        return np.zeros(len(self._counts), np.uint32)

    def add(self, name: str, counts: NDArray[np.uint32], n_above: int) -> None:
        """Add the counts of a tensor."""
        places = np.flatnonzero(counts)
        self._by_name[name] = places.astype(np.uint32), counts[places]
        self._counts[places] += counts[places]
        self.n_above += n_above

    def holds(self, n_keep: int) -> bool:
        """Return whether the `n_keep`-th largest element is in the window."""
        return self.n_above < n_keep <= self.n_above + int(self._counts.sum())

    def find(self, n_keep: int, names: Iterable[str]) -> Threshold:
        """Return the threshold at the `n_keep`-th largest element."""
        from_above = self._counts[::-1].cumsum() + self.n_above
        position = int(np.searchsorted(from_above, n_keep))
        place = len(self._counts) - 1 - position
        left = n_keep - (int(from_above[position - 1]) if position else self.n_above)
        n_ties = {}
        for name in names:
            places, counts = self._by_name[name]
            at = int(np.searchsorted(places, place))
            if at < len(places) and places[at] == place:
                n_ties[name] = min(left, int(counts[at]))
                left -= n_ties[name]
        return Threshold(self.low + place, n_ties)


def _guess(sizes: dict[str, int], read: Pieces, n_keep: int, *, sample: bool) -> list[int]:
    """Return for each vector the bin that should contain its `n_keep`-th largest magnitude.

    With `sample`, only the first piece of each tensor is read, and its counts are scaled up to the whole tensor.
    """

    def count(name: str) -> list[NDArray[Any]]:
        counts: list[NDArray[Any]] = []
        n_read = 0
        for runs in islice(read(name), 1 if sample else None):
            more = [np.bincount(run.view(np.uint32) << 1 >> LOW_BITS + 1, minlength=N_BINS) for run in runs]
            counts = [total + each for total, each in zip(counts, more, strict=True)] if counts else more
            n_read += len(runs[0])
        return [each * (sizes[name] / n_read) for each in counts]

    total = [sum(each) for each in zip(*filter(None, _in_threads(count, sizes)), strict=True)]
    tops = [np.searchsorted(np.cumsum(counts[::-1]), n_keep - 0.5) for counts in map(np.asarray, total)]
    return [N_BINS - 1 - min(int(top), N_BINS - 1) for top in tops]


def _count_windows(sizes: dict[str, int], read: Pieces, tops: Sequence[int]) -> list[_Window]:
    """Count the magnitudes around the bins `tops`, one for each vector; integer counts do not depend on the order."""

    windows, lock = [_Window(top) for top in tops], threading.Lock()

    def count(name: str) -> None:
        counts, n_above = [window.empty() for window in windows], [0] * len(windows)
        for runs in read(name):
            for position, run in enumerate(runs):
                n_above[position] += loops.count_window(run, windows[position].low, counts[position])
        with lock:
            for window, counted, above in zip(windows, counts, n_above, strict=True):
                window.add(name, counted, above)

    for _ in _in_threads(count, sizes):
        pass
    return windows


def _in_threads(function: Callable[[str], T], names: Iterable[str]) -> Iterator[T]:
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        yield from pool.map(function, names)
