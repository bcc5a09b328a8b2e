"""The largest elements by magnitude, exactly so many, without a sort (torch-free).

Magnitude bits are an fp32 number without its sign; patterns of finite magnitudes are ordered as the magnitudes are. A
sample tells a window of magnitudes that the n-th largest should be in; one pass counts each of them, and those above.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
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
HALF_WINDOW = 4  # bins of the window on each side of the bin that the sample tells
T = TypeVar("T")
Pieces = Callable[[str], Iterable[Sequence[NDArray[np.float32]]]]


def keep_largest(delta: NDArray[np.float32], threshold: int, n_ties: int) -> tuple[NDArray[np.float32], int]:
    """Keep elements whose magnitude bits exceed `threshold`, and the first `n_ties` that equal it; zero the others.

    Args:
        delta: fp32, any shape.
        threshold: bit pattern of a magnitude.
        n_ties: how many elements at the threshold may stay, in flattened order.

    Returns:
        The trimmed delta, and how many ties it kept.
    """
    flat, kept, left = delta.reshape(-1), np.empty(delta.size, np.float32), n_ties
    for at in range(0, len(flat), LOOP_ELEMENTS):
        piece = slice(at, at + LOOP_ELEMENTS)
        left -= loops.keep(flat[piece], threshold, left, kept[piece])
    return kept.reshape(delta.shape), n_ties - left


def keep_largest_of(delta: NDArray[np.float32], n_keep: int) -> NDArray[np.float32]:
    """Keep the `n_keep` largest elements of one delta; ties stay in flattened order."""
    if n_keep <= 0:
        return np.zeros_like(delta)
    ((threshold, n_ties),) = find_thresholds({"delta": delta.size}, lambda name: [[delta.reshape(-1)]], n_keep)
    return keep_largest(delta, threshold, n_ties)[0]


def find_thresholds(sizes: dict[str, int], read: Pieces, n_keep: int) -> list[tuple[int, int]]:
    """Return the bit pattern of the `n_keep`-th largest magnitude, and how many elements at it stay, for each vector.

    Args:
        sizes: number of elements by name of a tensor.
        read: returns the pieces of a tensor by name, each one [n] fp32 for every vector; called once or more per name,
            from several threads.
        n_keep: from 1 to the number of elements of a vector.
    """
    windows = _count_windows(sizes, read, _guess(sizes, read, n_keep, sample=True))
    if not all(window.holds(n_keep) for window in windows):
        windows = _count_windows(sizes, read, _guess(sizes, read, n_keep, sample=False))
    return [window.find(n_keep) for window in windows]


@dataclass
class _Window:
    """How often each magnitude from `low` on occurs, and how many elements are above them all."""

    low: int
    counts: NDArray[np.int64]
    n_above: int = 0

    @classmethod
    def around(cls, top: int) -> "_Window":
        """Return an empty window around a bin."""
        first, last = max(0, top - HALF_WINDOW), min(N_BINS - 1, top + HALF_WINDOW)
        return cls(first << LOW_BITS, np.zeros(last + 1 - first << LOW_BITS, np.int64))

    def holds(self, n_keep: int) -> bool:
        return self.n_above < n_keep <= self.n_above + int(self.counts.sum())

    def find(self, n_keep: int) -> tuple[int, int]:
        """Return the magnitude of the `n_keep`-th largest element, and how many of that magnitude are needed."""
        from_above = self.counts[::-1].cumsum() + self.n_above
        position = int(np.searchsorted(from_above, n_keep))
        above = int(from_above[position - 1]) if position else self.n_above
        return self.low + len(self.counts) - 1 - position, n_keep - above


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

    windows, lock = [_Window.around(top) for top in tops], threading.Lock()

    def count(name: str) -> None:
        counts = [np.zeros(len(window.counts), np.uint32) for window in windows]
        n_above = [0] * len(windows)
        for runs in read(name):
            for position, run in enumerate(runs):
                n_above[position] += loops.count_window(run, windows[position].low, counts[position])
        with lock:
            for window, above, counted in zip(windows, n_above, counts, strict=True):
                window.n_above += above
                window.counts += counted

    for _ in _in_threads(count, sizes):
        pass
    return windows


def _in_threads(function: Callable[[str], T], names: Iterable[str]) -> Iterator[T]:
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        yield from pool.map(function, names)
