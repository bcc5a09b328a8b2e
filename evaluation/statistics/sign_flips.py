"""McNemar's test for clustered replies, as a randomisation test that flips the signs of whole clusters."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from prosocial.core.errors import InputError

from .paired import mcnemar_exact


def mcnemar_clustered(changes: Sequence[int], clusters: Sequence[Hashable]) -> float:
    """Return the exact two-sided p-value of the hypothesis of no change, for clustered pairs.

    Under the null hypothesis, either sign of a cluster's net change is equally likely. The p-value is the probability,
    over all sign flips, of a total at least as far from 0 as the observed one. If every net change is 1 or -1, it
    equals McNemar's exact test. Source: Fisher's randomisation test on cluster totals.

    Args:
        changes: [n] 1 if the event is only after, -1 if only before, 0 if nothing changed.
        clusters: [n] the cluster of each pair.

    Raises:
        InputError: lengths differ.

    Examples:
        >>> mcnemar_clustered([1, 1, 1, 1, 0, 0], ["a", "a", "b", "b", "c", "c"])
        0.5
    """
    if len(changes) != len(clusters):
        raise InputError(f"each pair should have a cluster, found {len(changes)} pairs and {len(clusters)} clusters")
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
    """Return the probability of each total from -sum to sum [2 sum + 1] if each size has a random sign."""
    chances = np.ones(1)
    for size in sizes:
        wider = np.zeros(len(chances) + 2 * size)
        wider[: len(chances)] += chances / 2
        wider[2 * size :] += chances / 2
        chances = wider
    return chances
