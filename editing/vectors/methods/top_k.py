"""Keep the largest elements of the whole vector (harm direction removal, arXiv 2406.11801, equations 2 and 3)."""

import math

import torch

from .magnitudes import find_thresholds, keep_largest
from .method import Deltas, Prepared
from .numbers import share


def count_kept(deltas: Deltas, density: float) -> int:
    """Return how many elements of the whole vector a share of it is, one at least."""
    return max(1, round(density * sum(math.prod(deltas.shape(name)) for name in deltas.names)))


def prepare(deltas: Deltas, *, density: float) -> Prepared:
    """Find the global threshold for a share `density` of all elements.

    Ties at the threshold stay in the order of names, then of elements, until the count is reached.

    Raises:
        InputError: density is not in (0, 1].
    """
    density = share("density", density)
    n_keep = count_kept(deltas, density)
    ((threshold, ties_left),) = find_thresholds(deltas.names, lambda name: [deltas.delta(name)], n_keep)

    def transform(name: str, delta: torch.Tensor) -> torch.Tensor:
        nonlocal ties_left
        kept, n_ties = keep_largest(delta, threshold, ties_left)
        ties_left -= n_ties
        return kept

    return Prepared(transform, {"density": density})
