"""The largest elements by magnitude, exactly so many, without a sort (torch-free).

Magnitude bits are an fp32 number without its sign; patterns of finite magnitudes are ordered as the magnitudes are. A
sample tells a window of magnitudes that the n-th largest should be in; one pass counts each of them, and those above.
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
N_BINS = 1 << 15  # a bin is all magnitudes of the same high bits: a span of 0.4 to 0.8 %
HALF_WINDOW = 2  # bins of the window on each side of the bin that the sample tells
T = TypeVar("T")
Pieces = Callable[[str], Iterable[Sequence[NDArray[np.float32]]]]


def keep_largest_of(delta: NDArray[np.float32], n_keep: int) -> NDArray[np.float32]:
    """Keep the `n_keep` largest elements of one delta; ties stay in flattened order."""
    if n_keep <= 0:
        return np.zeros_like(delta)
    (threshold,) = find_thresholds({"delta": delta.size}, lambda name: [[delta.reshape(-1)]], n_keep)
    return threshold.keep("delta", delta)


@dataclass(frozen=True)
class Threshold:
    """The magnitude of the smallest elements of a vector that stay.

    Attributes:
        magnitude: its bit pattern.
        n_ties: how many elements of that magnitude stay, by name of a tensor; others have none.
    """

    magnitude: int
    n_ties: Mapping[str, int]

    def keep(self, name: str, delta: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a tensor's delta with zeros for what does not stay; fp32, any shape."""
        kept = np.empty(delta.size, np.float32)
        keep = self.keeper(name)
        for at in range(0, delta.size, LOOP_ELEMENTS):
            piece = slice(at, at + LOOP_ELEMENTS)
            keep(delta.reshape(-1)[piece], kept[piece])
        return kept.reshape(delta.shape)

    def keeper(self, name: str) -> Callable[[NDArray[np.float32], NDArray[np.float32]], None]:
        """Return what writes the shaped form of a tensor's pieces, given in their order, to arrays of their length."""
        left = self.n_ties.get(name, 0)

        def keep(piece: NDArray[np.float32], out: NDArray[np.float32]) -> None:
            nonlocal left
            left -= loops.keep(piece, self.magnitude, left, out)

        return keep


def find_thresholds(sizes: dict[str, int], read: Pieces, n_keep: int) -> list[Threshold]:
    """Return the threshold of each vector above which `n_keep` elements are, or at it.

    Ties stay in the order of names as given, then of elements.

    Args:
        sizes: number of elements by name of a tensor.
        read: returns the pieces of a tensor by name, each one [n] fp32 for every vector; called once or more per name,
            from several threads.
        n_keep: from 1 to the number of elements of a vector.
    """
    windows = _count_windows(sizes, read, _guess(sizes, read, n_keep, sample=True))
    if not all(window.holds(n_keep) for window in windows):
        windows = _count_windows(sizes, read, _guess(sizes, read, n_keep, sample=False))
    return [window.find(n_keep, sizes) for window in windows]


class _Window:
    """How often each magnitude of some bins occurs, in all and by tensor, and how many elements are above them all."""

    def __init__(self, top: int) -> None:
        first, last = max(0, top - HALF_WINDOW), min(N_BINS - 1, top + HALF_WINDOW)
        self.low, self.n_above = first << LOW_BITS, 0
        self._counts = np.zeros(last + 1 - first << LOW_BITS, np.int64)
        self._by_name: dict[str, tuple[NDArray[Any], NDArray[np.uint32]]] = {}  # places that occur, and how often

    def empty(self) -> NDArray[np.uint32]:
        """Return counts for one tensor."""
        return np.zeros(len(self._counts), np.uint32)

    def add(self, name: str, counts: NDArray[np.uint32], n_above: int) -> None:
        """Add a tensor."""
        places = np.flatnonzero(counts)
        self._by_name[name] = places.astype(np.uint32), counts[places]
        self._counts[places] += counts[places]
        self.n_above += n_above

    def holds(self, n_keep: int) -> bool:
        """Whether the `n_keep`-th largest element is in the window."""
        return self.n_above < n_keep <= self.n_above + int(self._counts.sum())

    def find(self, n_keep: int, names: Iterable[str]) -> Threshold:
        """Return the magnitude of the `n_keep`-th largest element, and how many of that magnitude stay, by name."""
        from_above = self._counts[::-1].cumsum() + self.n_above
        position = int(np.searchsorted(from_above, n_keep))
        place = len(self._counts) - 1 - position
        left = n_keep - (int(from_above[position - 1]) if position else self.n_above)
        n_ties = {}
        for name in names:
            places, counts = self._by_name[name]
            found = int(np.searchsorted(places, place))
            if found < len(places) and places[found] == place:
                n_ties[name] = min(left, int(counts[found]))
                left -= n_ties[name]
        return Threshold(self.low + place, n_ties)


def _guess(sizes: dict[str, int], read: Pieces, n_keep: int, *, sample: bool) -> list[int]:
    """Return for each vector the bin that should hold its `n_keep`-th largest magnitude.

    A sample is the first piece of each tensor, which then stands for the whole of it.
    """

    def count(name: str) -> list[NDArray[Any]]:
        counts: list[NDArray[Any]] = []
        n_read = 0
        for runs in islice(read(name), 1 if sample else None):
            found = [np.bincount(run.view(np.uint32) << 1 >> LOW_BITS + 1, minlength=N_BINS) for run in runs]
            counts = [ours + theirs for ours, theirs in zip(counts, found, strict=True)] if counts else found
            n_read += len(runs[0])
        return [each * (sizes[name] / n_read) for each in counts]

    total = [sum(each) for each in zip(*filter(None, _in_threads(count, sizes)), strict=True)]
    tops = [np.searchsorted(np.cumsum(counts[::-1]), n_keep - 0.5) for counts in map(np.asarray, total)]
    return [N_BINS - 1 - min(int(top), N_BINS - 1) for top in tops]


def _count_windows(sizes: dict[str, int], read: Pieces, tops: Sequence[int]) -> list[_Window]:
    """Count the magnitudes around the bins `tops`, one for each vector; whole numbers, so that no order matters."""

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
