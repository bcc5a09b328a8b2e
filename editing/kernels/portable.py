"""The loops in numpy; arrays are bit-identical to those of the C loops, sums may differ in the last digits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.numbers import dot, widen

SIGNLESS = 0x7FFFFFFF


def scatter(places: NDArray[Any], values: NDArray[np.float32], at: int, out: NDArray[np.float32]) -> int:
    """See `Loops.scatter`."""
    out.fill(0.0)
    entries = places[: len(out) + 1]  # a piece can hold at most len(out) rising indices
    beyond = np.flatnonzero(entries >= at + len(out))
    n_used = int(beyond[0]) if len(beyond) else len(entries)
    inside = entries[:n_used].astype(np.int64) - at
    if n_used and (inside[0] < 0 or (np.diff(inside) <= 0).any()):
        return -1
    out[inside] = values[:n_used]
    return n_used


def gather(delta: NDArray[np.float32], at: int, places: NDArray[Any], values: NDArray[np.float32]) -> int:
    """See `Loops.gather`."""
    nonzero = np.flatnonzero(delta)
    np.add(nonzero, at, out=places[: len(nonzero)], casting="unsafe")
    values[: len(nonzero)] = delta[nonzero]
    return len(nonzero)


def difference(
    left: NDArray[Any], right: NDArray[Any], delta: NDArray[np.float32], is_bf16: bool
) -> tuple[float, float, float, float]:
    """See `Loops.difference`."""
    first, second = left, right
    if is_bf16:
        first, second = np.empty_like(delta), np.empty_like(delta)
        widen(left, first)
        widen(right, second)
    with np.errstate(all="ignore"):
        np.subtract(second, first, out=delta)
        return dot(first, first), dot(first, second), dot(second, second), dot(delta, delta)


def count_window(delta: NDArray[np.float32], low: int, counts: NDArray[np.uint32]) -> int:
    """See `Loops.count_window`."""
    places = (delta.view(np.uint32) & SIGNLESS).astype(np.int64) - low
    inside = places[(places >= 0) & (places < len(counts))]
    counts += np.bincount(inside, minlength=len(counts)).astype(np.uint32)
    return int(np.count_nonzero(places >= len(counts)))


def keep(delta: NDArray[np.float32], threshold: int, n_ties: int, out: NDArray[np.float32]) -> int:
    """See `Loops.keep`."""
    bits = delta.view(np.uint32) & SIGNLESS
    stays = bits > threshold
    ties = np.flatnonzero(bits == threshold)[:n_ties]
    stays[ties] = True
    np.copyto(out, np.where(stays, delta, np.float32(0.0)))
    return len(ties)
