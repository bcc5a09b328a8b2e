"""Intervals over runs and topics at once: training runs are drawn with replacement, then topics within each of them."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from prosocial.core.errors import InputError

from ..statistics.interval import Interval

Floats = NDArray[np.float64]
Name = TypeVar("Name", bound=Hashable)
Draw = list[tuple[int, Floats]]  # for each run drawn: which one, and how often each of its probes counts


def hierarchical_bootstrap(
    clusters: Sequence[Sequence[Hashable]],
    statistics: Callable[[Draw], Mapping[Name, float]],
    *,
    seed: int,
    draws: int = 1000,
    confidence: float = 0.95,
) -> dict[Name, Interval]:
    """Return statistics over runs, by name, with percentile intervals from the same draws.

    Few runs make the intervals too narrow: with 10 runs they cover less than their name says, with one only the spread
    over its topics is told. Source: Saravanan, Berman and Sober 2020, Neurons, Behavior, Data Analysis and Theory 3.

    Args:
        clusters: for each run, the topic of each of its probes.
        statistics: of a draw, which names a run and the weight [n] of its probes, once for each time it was drawn.
        draws: number of resamples.

    Raises:
        InputError: there is no run, or one without probes.

    Example:
        >>> found = hierarchical_bootstrap([["tea", "rain"]], lambda draw: {"n": draw[0][1].sum()}, seed=0, draws=9)
        >>> found["n"].estimate
        2.0
    """
    if not clusters or not all(len(run) for run in clusters):
        raise InputError(f"there should be one or more runs with probes, found {[len(run) for run in clusters]}")
    members = [_members(run) for run in clusters]
    whole = statistics([(run, np.ones(len(found))) for run, found in enumerate(members)])
    numbers = np.random.Generator(np.random.PCG64(seed))
    drawn = [statistics(_draw(members, numbers)) for _ in range(draws)]
    n, n_clusters = sum(map(len, members)), sum(int(run.max()) + 1 for run in members)
    found: dict[Name, Interval] = {}
    for name, value in whole.items():
        low, high = np.quantile([one[name] for one in drawn], [(1 - confidence) / 2, (1 + confidence) / 2])
        limits = (float(value), float(low), float(high))
        found[name] = Interval(*limits, n, n_clusters, confidence, "hierarchical bootstrap")
    return found


def _members(run: Sequence[Hashable]) -> NDArray[np.intp]:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(cluster, len(numbers)) for cluster in run], dtype=np.intp)


def _draw(members: Sequence[NDArray[np.intp]], numbers: np.random.Generator) -> Draw:
    chosen = numbers.integers(len(members), size=len(members))
    return [(int(run), _counts(members[run], numbers)) for run in chosen]


def _counts(members: NDArray[np.intp], numbers: np.random.Generator) -> Floats:
    n_clusters = int(members.max()) + 1
    drawn = np.bincount(numbers.integers(n_clusters, size=n_clusters), minlength=n_clusters)
    return np.asarray(drawn[members], dtype=np.float64)
