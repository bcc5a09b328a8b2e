"""Trim each run, elect a sign per element, average the runs that agree (TIES, arXiv 2306.01708, algorithm 1).

tau_t = top-k of run t over its whole vector;  gamma = sgn(sum_t tau_t);  mean of the tau_t whose sign is gamma

With one run the election has no effect and the method equals `top_k`. The result never points against the mean delta.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from .magnitudes import find_thresholds
from .method import Array, Deltas, Prepared, method
from .numbers import Density
from .top_k import count_kept, sizes_of

PIECE_ELEMENTS = 1 << 16


def merge_agreeing(trimmed: Sequence[Array]) -> Array:
    """Return, for each element, the mean over the runs with the elected sign; zero if the signs cancel.

    Args:
        trimmed: trimmed delta of each run, fp32, all of one shape.
    """
    stacked = np.stack(trimmed).astype(np.float64)  # [runs, ...]
    elected = np.sign(stacked.sum(0))
    agrees = (np.sign(stacked) == elected) & (elected != 0)
    total = np.where(agrees, stacked, 0.0).sum(0)
    return np.asarray(total / agrees.sum(0).clip(min=1), np.float32)


def keep_direction(shaped: Array, raw: Array) -> Array:
    """Return `shaped`; if its inner product with `raw` is negative, set the elements whose signs differ to zero.

    An elected sign can differ from the sign of the untrimmed mean, because trimming drops the small elements.

    Args:
        shaped: merged delta, fp32.
        raw: mean of the untrimmed runs, fp32, of the same shape.
    """
    if np.vdot(shaped.astype(np.float64), raw.astype(np.float64)) >= 0:
        return shaped
    return np.where(np.sign(shaped) * np.sign(raw) >= 0, shaped, np.float32(0.0))


@method()
def prepare(deltas: Deltas, *, density: Density) -> Prepared:
    """Find the magnitude threshold of each run that keeps the share `density` of all its elements.

    Of elements at the threshold the first are kept, in the order of names and then of positions.

    Args:
        deltas: every run is read once or twice.
        density: share of the elements of each run to keep.
    """
    sizes = sizes_of(deltas)
    thresholds = find_thresholds(sizes, lambda name: _pieces(deltas, name), count_kept(sizes, density))
    if len(thresholds) == 1:
        return Prepared(thresholds[0].keep, {"density": density}, by_piece=thresholds[0].keeper)

    def transform(name: str, delta: Array) -> Array:
        return _elect([each.keep(name, run) for each, run in zip(thresholds, deltas.runs(name), strict=True)], delta)

    return Prepared(transform, {"density": density})


def _pieces(deltas: Deltas, name: str) -> Iterable[list[Array]]:
    """Return the pieces of a tensor, each a list with one array for each run."""
    if len(deltas) == 1:
        return ([piece] for piece in deltas.pieces(name))
    return [[run.reshape(-1) for run in deltas.runs(name)]]


def _elect(trimmed: Sequence[Array], delta: Array) -> Array:
    flat = [each.reshape(-1) for each in trimmed]
    parts = [
        merge_agreeing([each[at : at + PIECE_ELEMENTS] for each in flat]) for at in range(0, delta.size, PIECE_ELEMENTS)
    ]
    return keep_direction(np.concatenate(parts).reshape(delta.shape), delta)
