"""Trim each run, elect a sign per element, average the runs that agree (TIES, arXiv 2306.01708, algorithm 1).

tau_t = top-k of run t over its whole vector;  gamma = sgn(sum_t tau_t);  mean of the tau_t whose sign is gamma

With one run the election has nothing to decide and the method is `top_k`; it never flips a sign.
"""

from collections.abc import Sequence

import torch

from ...checkpoints.tensors import pieces_of
from ..statistics import inner_product
from .magnitudes import find_thresholds, keep_largest
from .method import Deltas, Prepared
from .numbers import share
from .top_k import count_kept


def merge_agreeing(trimmed: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the mean over the runs whose sign is the elected one, zero where none is; fp32 of one shape each."""
    stacked = torch.stack(list(trimmed))  # [runs, ...]
    elected = stacked.double().sum(0).sign()
    agrees = (stacked.sign() == elected) & (elected != 0)
    total = torch.where(agrees, stacked.double(), 0.0).sum(0)
    return (total / agrees.sum(0).clamp(min=1)).float()


def keep_direction(shaped: torch.Tensor, raw: torch.Tensor) -> torch.Tensor:
    """Return a delta without the elements whose sign is against `raw`, if together they would turn it round.

    An elected sign can be against that of the untrimmed mean: one large run outvotes several small ones.
    """
    if inner_product(shaped, raw) >= 0:
        return shaped
    return torch.where(shaped.sign() * raw.sign() >= 0, shaped, 0.0)


def prepare(deltas: Deltas, *, density: float) -> Prepared:
    """Find the threshold of each run for a share `density` of all its elements.

    Ties at a threshold stay in the order of names, then of elements, until the count is reached.

    Raises:
        InputError: density is not in (0, 1].
    """
    density = share("density", density)
    found = find_thresholds(deltas.names, deltas.runs, count_kept(deltas, density))
    thresholds, ties_left = [threshold for threshold, _ in found], [n_ties for _, n_ties in found]

    def transform(name: str, delta: torch.Tensor) -> torch.Tensor:
        trimmed = []
        for position, run in enumerate([delta] if len(found) == 1 else deltas.runs(name)):
            kept, n_ties = keep_largest(run, thresholds[position], ties_left[position])
            ties_left[position] -= n_ties
            trimmed.append(kept)
        if len(trimmed) == 1:
            return trimmed[0]
        pieces = zip(*map(pieces_of, trimmed), strict=True)
        merged = torch.cat([merge_agreeing(piece) for piece in pieces]).reshape(delta.shape)
        return keep_direction(merged, delta)

    return Prepared(transform, {"density": density})
