"""McNemar's test where replies come in clusters: a whole cluster turns, or none of it."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from prosocial.core.errors import InputError

from .paired import mcnemar_exact


def mcnemar_clustered(changes: Sequence[int], clusters: Sequence[Hashable]) -> float:
    """Return the exact two-sided p-value of "nothing changed" where replies to one prompt are not independent.

    If the two systems are alike, the net change of each cluster is as likely with either sign. The p-value is the
    chance of a total at least as far from 0 under all flips of these signs. With one reply per cluster, or one change
    at most in each, it is McNemar's exact test. Source: Fisher's randomisation test, on cluster totals.

    Args:
        changes: [n] 1 where the event is new, -1 where it is gone, 0 where nothing changed.
        clusters: [n] the cluster of each pair.

    Raises:
        InputError: lengths differ.

    Example:
        >>> mcnemar_clustered([1, 1, 1, 1, 0, 0], ["a", "a", "b", "b", "c", "c"])
        0.5
    """
    if len(changes) != len(clusters):
        raise InputError(f"each pair needs a cluster, found {len(changes)} pairs and {len(clusters)} clusters")
    totals: dict[Hashable, int] = {}
    for change, cluster in zip(changes, clusters, strict=True):
        totals[cluster] = totals.get(cluster, 0) + change
    moved = [total for total in totals.values() if total]
    if all(abs(total) == 1 for total in moved):
        return mcnemar_exact(moved.count(1), moved.count(-1))
    chances = _flipped_totals([abs(total) for total in moved])
    reach = len(chances) // 2
    far = np.abs(np.arange(-reach, reach + 1)) >= abs(sum(moved))
    return float(min(1.0, chances[far].sum()))


def _flipped_totals(sizes: Sequence[int]) -> NDArray[np.float64]:
    """Return the chance of each total from -sum to sum [2 sum + 1], each size added or taken away by a fair coin."""
    chances = np.ones(1)
    for size in sizes:
        wider = np.zeros(len(chances) + 2 * size)
        wider[: len(chances)] += chances / 2
        wider[2 * size :] += chances / 2
        chances = wider
    return chances
