"""Trim each run, elect a sign per element, average the runs that agree (TIES, arXiv 2306.01708, algorithm 1).

tau_t = top-k of run t over its whole vector;  gamma = sgn(sum_t tau_t);  mean of the tau_t whose sign is gamma

With one run the election has nothing to decide and the method is `top_k`; it never flips a sign.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from .magnitudes import find_thresholds
from .method import Array, Deltas, Prepared, method
from .numbers import Density
from .top_k import count_kept, sizes_of

PIECE_ELEMENTS = 1 << 16


def merge_agreeing(trimmed: Sequence[Array]) -> Array:
    """Return the mean over the runs whose sign is the elected one, zero where none is; fp32 of one shape each."""
    stacked = np.stack(trimmed).astype(np.float64)  # [runs, ...]
    elected = np.sign(stacked.sum(0))
    agrees = (np.sign(stacked) == elected) & (elected != 0)
    total = np.where(agrees, stacked, 0.0).sum(0)
    return np.asarray(total / agrees.sum(0).clip(min=1), np.float32)


def keep_direction(shaped: Array, raw: Array) -> Array:
    """Return a delta without the elements whose sign is against `raw`, if together they would turn it round.

    An elected sign can be against that of the untrimmed mean: one large run outvotes several small ones.
    """
    if np.vdot(shaped.astype(np.float64), raw.astype(np.float64)) >= 0:
        return shaped
    return np.where(np.sign(shaped) * np.sign(raw) >= 0, shaped, np.float32(0.0))


@method()
def prepare(deltas: Deltas, *, density: Density) -> Prepared:
    """Find the threshold of each run for a share `density` of all its elements.

    Ties at a threshold stay in the order of names, then of elements, until the count is reached.
    """
    sizes = sizes_of(deltas)
    found = find_thresholds(sizes, lambda name: _pieces(deltas, name), count_kept(sizes, density))
    if len(found) == 1:
        return Prepared(found[0].keep, {"density": density}, by_piece=found[0].keeper)

    def transform(name: str, delta: Array) -> Array:
        return _elect([each.keep(name, run) for each, run in zip(found, deltas.runs(name), strict=True)], delta)

    return Prepared(transform, {"density": density})


def _pieces(deltas: Deltas, name: str) -> Iterable[list[Array]]:
    """Return the pieces of each run."""
    if len(deltas) == 1:
        return ([piece] for piece in deltas.pieces(name))
    return [[run.reshape(-1) for run in deltas.runs(name)]]


def _elect(trimmed: Sequence[Array], delta: Array) -> Array:
    flat = [each.reshape(-1) for each in trimmed]
    parts = [
        merge_agreeing([each[at : at + PIECE_ELEMENTS] for each in flat]) for at in range(0, delta.size, PIECE_ELEMENTS)
    ]
    return keep_direction(np.concatenate(parts).reshape(delta.shape), delta)
