"""Keep the largest elements of the whole vector (harm direction removal, arXiv 2406.11801, equations 2 and 3)."""

import torch

from ...checkpoints.tensors import pieces_of
from ...errors import InputError
from .method import Deltas, Prepared

HIGH_BINS, LOW_BITS = 1 << 15, 16  # magnitude bits of an fp32 number, without the sign: 15 high, 16 low


def keep_largest(delta: torch.Tensor, threshold: int, n_ties: int) -> tuple[torch.Tensor, int]:
    """Keep elements whose magnitude bits exceed `threshold`, and the first `n_ties` that equal it; zero the others.

    Args:
        delta: fp32, any shape.
        threshold: bit pattern of a magnitude; patterns of finite fp32 magnitudes are ordered as the magnitudes are.
        n_ties: how many elements at the threshold may stay, in flattened order.

    Returns:
        The trimmed delta, and how many ties it kept.
    """
    bits = _magnitude_bits(delta)
    ties = bits == threshold
    kept_ties = ties & (ties.cumsum(0) <= n_ties)
    kept = torch.where((bits > threshold) | kept_ties, delta.flatten(), 0.0)
    return kept.reshape(delta.shape), int(kept_ties.sum())


def find_threshold(deltas: Deltas, n_keep: int) -> tuple[int, int]:
    """Return the bit pattern of the `n_keep`-th largest magnitude of all deltas, and how many elements at it stay.

    Two passes with histograms of 15 and 16 bits; nothing is sorted and the count is exact.
    """
    high = torch.zeros(HIGH_BINS, dtype=torch.int64)
    for name in deltas.names:
        for bits in pieces_of(_magnitude_bits(deltas.delta(name))):
            high += torch.bincount(bits >> LOW_BITS, minlength=HIGH_BINS)
    top, left = _bin_of(high, n_keep)
    low = torch.zeros(1 << LOW_BITS, dtype=torch.int64)
    for name in deltas.names:
        for bits in pieces_of(_magnitude_bits(deltas.delta(name))):
            inside = bits[(bits >> LOW_BITS) == top] & ((1 << LOW_BITS) - 1)
            low += torch.bincount(inside, minlength=1 << LOW_BITS)
    bottom, n_ties = _bin_of(low, left)
    return (top << LOW_BITS) | bottom, n_ties


def prepare(deltas: Deltas, *, density: float) -> Prepared:
    """Find the global threshold for a share `density` of all elements.

    Ties at the threshold stay in the order of names, then of elements, until the count is reached.

    Raises:
        InputError: density is not in (0, 1].
    """
    if not 0 < density <= 1:
        raise InputError(f"density should be in (0, 1], found {density}")
    n_elements = sum(deltas.delta(name).numel() for name in deltas.names)
    threshold, ties_left = find_threshold(deltas, max(1, round(density * n_elements)))

    def transform(name: str, delta: torch.Tensor) -> torch.Tensor:
        nonlocal ties_left
        kept, n_ties = keep_largest(delta, threshold, ties_left)
        ties_left -= n_ties
        return kept

    return Prepared(transform, {"density": float(density)})


def _magnitude_bits(delta: torch.Tensor) -> torch.Tensor:
    return delta.flatten().view(torch.int32) & 0x7FFFFFFF


def _bin_of(counts: torch.Tensor, n_keep: int) -> tuple[int, int]:
    """Return the bin that holds the `n_keep`-th element from above, and how many of that bin are needed."""
    from_above = counts.flip(0).cumsum(0)
    position = int(torch.searchsorted(from_above, n_keep))
    above = int(from_above[position - 1]) if position else 0
    return len(counts) - 1 - position, n_keep - above
