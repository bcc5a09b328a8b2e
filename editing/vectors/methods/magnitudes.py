"""The largest elements by magnitude, exactly so many, without a sort.

Magnitude bits are an fp32 number without its sign; patterns of finite magnitudes are ordered as the magnitudes are.
Two histograms, of the 15 high and the 16 low bits, give the n-th largest exactly.
"""

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from ...checkpoints.tensors import pieces_of

HIGH_BINS, LOW_BITS = 1 << 15, 16
SIGNLESS = 0x7FFFFFFF
PIECE_ELEMENTS = 1 << 16  # intermediate results stay in the cache

Histogram = NDArray[np.int64]


def keep_largest(delta: torch.Tensor, threshold: int, n_ties: int) -> tuple[torch.Tensor, int]:
    """Keep elements whose magnitude bits exceed `threshold`, and the first `n_ties` that equal it; zero the others.

    Args:
        delta: fp32, any shape.
        threshold: bit pattern of a magnitude.
        n_ties: how many elements at the threshold may stay, in flattened order.

    Returns:
        The trimmed delta, and how many ties it kept.
    """
    kept, left, zero = torch.empty(delta.numel()), n_ties, torch.zeros(())
    for piece, place in zip(pieces_of(delta, PIECE_ELEMENTS), pieces_of(kept, PIECE_ELEMENTS), strict=True):
        bits = piece.view(torch.int32) & SIGNLESS
        stays = bits > threshold
        if left:
            ties = np.flatnonzero((bits == threshold).numpy())[:left]
            stays[ties] = True
            left -= len(ties)
        torch.where(stays, piece, zero, out=place)
    return kept.reshape(delta.shape), n_ties - left


def keep_largest_of(delta: torch.Tensor, n_keep: int) -> torch.Tensor:
    """Keep the `n_keep` largest elements of one delta; ties stay in flattened order."""
    if n_keep <= 0:
        return torch.zeros_like(delta)
    ((threshold, n_ties),) = find_thresholds(["delta"], lambda name: [delta], n_keep)
    return keep_largest(delta, threshold, n_ties)[0]


def find_thresholds(
    names: Sequence[str], read: Callable[[str], Sequence[torch.Tensor]], n_keep: int
) -> list[tuple[int, int]]:
    """Return the bit pattern of the `n_keep`-th largest magnitude, and how many elements at it stay, for each vector.

    Args:
        names: of the tensors.
        read: returns a tensor of each vector by name, fp32; called twice per name, from several threads.
        n_keep: from 1 to the number of elements of a vector.
    """
    places = [_bin_of(counts, n_keep) for counts in _sum(names, lambda name: map(_high_counts, read(name)))]
    tops = [top for top, _ in places]
    low = _sum(names, lambda name: map(_low_counts, read(name), tops))
    found = []
    for (top, left), counts in zip(places, low, strict=True):
        bottom, n_ties = _bin_of(counts, left)
        found.append(((top << LOW_BITS) | bottom, n_ties))
    return found


def _high_counts(delta: torch.Tensor) -> Histogram:
    counts = torch.zeros(HIGH_BINS, dtype=torch.int64)
    for piece in pieces_of(delta, PIECE_ELEMENTS):
        counts += torch.bincount((piece.view(torch.int32) & SIGNLESS) >> LOW_BITS, minlength=HIGH_BINS)
    return counts.numpy()


def _low_counts(delta: torch.Tensor, top: int) -> Histogram:
    counts, inside = np.zeros(1 << LOW_BITS, dtype=np.int64), []
    for piece in pieces_of(delta, PIECE_ELEMENTS):
        bits = piece.numpy().view(np.uint32) & SIGNLESS
        inside.append(bits[bits >> LOW_BITS == top])
    if inside:
        counts += np.bincount(np.concatenate(inside) & ((1 << LOW_BITS) - 1), minlength=1 << LOW_BITS)
    return counts


def _sum(names: Sequence[str], count: Callable[[str], Iterable[Histogram]]) -> list[Histogram]:
    """Add the histograms of each vector over all tensors; whole numbers, so that the order does not matter."""
    total: list[Histogram] = []
    lock = threading.Lock()

    def add(name: str) -> None:
        found = list(count(name))
        with lock:
            if not total:
                total.extend(found)
                return
            for ours, theirs in zip(total, found, strict=True):
                ours += theirs

    if len(names) == 1:
        add(names[0])
    else:
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            list(pool.map(add, names))
    return total


def _bin_of(counts: Histogram, n_keep: int) -> tuple[int, int]:
    """Return the bin that holds the `n_keep`-th element from above, and how many of that bin are needed."""
    from_above = counts[::-1].cumsum()
    position = int(np.searchsorted(from_above, n_keep))
    above = int(from_above[position - 1]) if position else 0
    return len(counts) - 1 - position, n_keep - above
