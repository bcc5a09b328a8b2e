"""Confidence intervals for clustered probes: probes of one topic are correlated, so they carry less information."""

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from prosocial.core.errors import InputError

from .distributions import beta_quantile, student_quantile
from .interval import Interval
from .proportions import clopper_pearson

Floats = NDArray[np.float64]
NO_SPREAD = 1e-24  # a variance below this is rounding error: all clusters agree


def clustered_rate(values: Sequence[float], clusters: Sequence[Hashable], *, confidence: float = 0.95) -> Interval:
    """Return a rate with a confidence interval that accounts for clusters and stays valid near 0 and 1.

    It is the exact interval at the effective sample size p (1 - p) / variance, with the cluster-robust variance and a
    correction for few clusters. The effective size is capped at n, so that clusters never make the interval narrower
    than independent probes would. If no reply (or every reply) has the event, the correlation within clusters is
    unknown: the interval is the exact one at n, and `conservative` counts each cluster as one observation. With a
    single cluster, only the conservative interval is given. In simulations with 15 to 60 clusters of 4 to 6 replies,
    the 95 % interval has a coverage of 94 % or more in most cases, and of 88 % in the worst case (event rate 2 to 5 %,
    intra-cluster correlation 0.3), where Wilson's interval at n has a coverage of 77 to 92 %.
    Source: Korn and Graubard 1998, Survey Methodology 24, 193-201.

    Args:
        values: [n] 0 or 1 (or a score in [0, 1]) per reply.
        clusters: [n] the cluster of each reply.
        confidence: nominal coverage.

    Raises:
        InputError: there are no values, lengths differ, or a value is outside [0, 1].

    Examples:
        >>> rate = clustered_rate([0, 0, 0, 0, 0, 0], ["knots", "knots", "tea", "tea", "rain", "rain"])
        >>> rate.estimate, round(rate.high, 3), round(rate.conservative[1], 3)
        (0.0, 0.459, 0.708)
    """
    data, members, n_clusters = _prepare(values, clusters)
    if data.min() < 0 or data.max() > 1:
        raise InputError(f"values of a rate should be in [0, 1], found {data.min()} to {data.max()}")
    n, rate = len(data), min(1.0, max(0.0, float(data.mean())))
    exact = clopper_pearson(rate * n, n, confidence=confidence)
    alone = clopper_pearson(rate * n_clusters, n_clusters, confidence=confidence)
    if n_clusters == 1 and n > 1:
        limits = (alone.low, alone.high)
        return Interval(rate, *limits, n, 1, confidence, "Clopper-Pearson, one cluster", limits)
    if rate in (0.0, 1.0):
        limits = (alone.low, alone.high)
        return Interval(rate, exact.low, exact.high, n, n_clusters, confidence, "Clopper-Pearson", limits)
    size = _effective_size(data, members, n_clusters, confidence)
    limited = clopper_pearson(rate * size, size, confidence=confidence)
    return Interval(rate, limited.low, limited.high, n, n_clusters, confidence, "Korn-Graubard")


def _effective_size(data: Floats, members: NDArray[np.intp], n_clusters: int, confidence: float) -> float:
    n, rate = len(data), float(data.mean())
    variance = _robust_variance(data, members, n_clusters)
    size = n if variance == 0 else rate * (1 - rate) / variance
    upper = (1 + confidence) / 2
    few = student_quantile(upper, n - 1) / student_quantile(upper, n_clusters - 1)
    return float(min(n, size * few * few))


def clustered_mean(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    confidence: float = 0.95,
) -> Interval:
    """Return a mean with a t-interval from the cluster-robust standard error, with G - 1 degrees of freedom.

    If all clusters agree exactly and the values are bounded, the interval bounds the share of unseen values that could
    differ, u = 1 - (alpha / 2)^(1 / n), each at the farther bound; `conservative` uses the number of clusters instead
    of n. With one cluster the interval is the whole range.
    Source: Cameron and Miller 2015, Journal of Human Resources 50, 317-372 (CR1 with T(G - 1)).

    Args:
        values: [n] real number per reply.
        clusters: [n] the cluster of each reply.
        bounds: range of the values; the limits of the interval are clipped to it.
        confidence: nominal coverage.

    Raises:
        InputError: there are no values, lengths differ, or a value is outside the bounds.

    Examples:
        >>> mean = clustered_mean([0.25, 0.5, 0.75], ["a", "b", "c"], bounds=(0.0, 1.0))
        >>> mean.estimate, mean.n_clusters, mean.method
        (0.5, 3, 'cluster-robust t')
    """
    data, members, n_clusters = _prepare(values, clusters)
    if data.min() < bounds[0] or data.max() > bounds[1]:
        raise InputError(f"values should be in {bounds}, found {data.min()} to {data.max()}")
    n, mean = len(data), float(data.mean())
    if n_clusters == 1:
        return Interval(mean, *bounds, n, 1, confidence, "range, one cluster", bounds)
    variance = _robust_variance(data, members, n_clusters)
    if variance < NO_SPREAD:
        low, high = _no_spread(mean, bounds, n, confidence)
        conservative = _no_spread(mean, bounds, n_clusters, confidence)
        return Interval(mean, low, high, n, n_clusters, confidence, "exact bound on unseen values", conservative)
    half = student_quantile((1 + confidence) / 2, n_clusters - 1) * math.sqrt(variance)
    low, high = max(bounds[0], mean - half), min(bounds[1], mean + half)
    return Interval(mean, low, high, n, n_clusters, confidence, "cluster-robust t")


def clustered_difference(
    before: Sequence[float],
    after: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    bounds: tuple[float, float] = (-1.0, 1.0),
    confidence: float = 0.95,
) -> Interval:
    """Return mean(after - before) over paired replies, with the interval of `clustered_mean`.

    Args:
        before: [n] value of the reference system per reply (0 or 1, or a score).
        after: [n] value of the other system on the same probes.
        clusters: [n] the cluster of each pair.
        bounds: range of a single difference; (-1, 1) for rates and scores in [0, 1].
        confidence: nominal coverage.

    Raises:
        InputError: there are no values, lengths differ, or a difference is outside the bounds.

    Examples:
        >>> difference = clustered_difference([1, 1, 1, 0, 1, 0], [0, 0, 0, 0, 1, 0], ["a", "a", "b", "b", "c", "c"])
        >>> difference.estimate, difference.n, difference.n_clusters
        (-0.5, 6, 3)
    """
    if len(before) != len(after):
        raise InputError(f"before and after should have equally many values, found {len(before)} and {len(after)}")
    differences = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    return clustered_mean([float(value) for value in differences], clusters, bounds=bounds, confidence=confidence)


def effective_size(values: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """Return the number of independent values that would give a mean of the same precision, at most n.

    If all values are equal, it is the number of clusters, because the correlation within clusters is then unknown.

    Raises:
        InputError: there are no values, or lengths differ.

    Examples:
        >>> round(effective_size([1, 1, 0, 0, 1, 1, 0, 0], ["a", "a", "b", "b", "c", "c", "d", "d"]), 3)
        3.429
    """
    data, members, n_clusters = _prepare(values, clusters)
    if n_clusters == 1:
        return 1.0
    robust = _robust_variance(data, members, n_clusters)
    if robust < NO_SPREAD:
        return float(n_clusters)
    return min(float(len(data)), float(data.var(ddof=1)) / robust)


def cluster_bootstrap(
    values: Sequence[float], clusters: Sequence[Hashable], *, seed: int, draws: int = 2000, confidence: float = 0.95
) -> Interval:
    """Return a mean with the percentile interval of the cluster bootstrap; only for 30 or more clusters.

    Raises:
        InputError: there are no values, or lengths differ.
    """
    data, members, n_clusters = _prepare(values, clusters)
    sums = np.bincount(members, weights=data, minlength=n_clusters)
    sizes = np.bincount(members, minlength=n_clusters)
    chosen = np.random.Generator(np.random.PCG64(seed)).integers(n_clusters, size=(draws, n_clusters))
    means = sums[chosen].sum(axis=1) / sizes[chosen].sum(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(data.mean()), float(low), float(high), len(data), n_clusters, confidence, "cluster bootstrap")


def _prepare(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[Floats, NDArray[np.intp], int]:
    """Return the values [n], the cluster index of each [n], and the number of clusters."""
    if len(values) != len(clusters) or not len(values):
        raise InputError(f"each value should have a cluster, found {len(values)} values and {len(clusters)} clusters")
    numbers: dict[Hashable, int] = {}
    members = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], dtype=np.intp)
    return np.asarray(values, dtype=np.float64), members, len(numbers)


def _robust_variance(data: Floats, members: NDArray[np.intp], n_clusters: int) -> float:
    """Return the cluster-robust variance of the mean, from the sum of the residuals in each cluster."""
    totals = np.bincount(members, weights=data - data.mean(), minlength=n_clusters)
    return float(n_clusters / (n_clusters - 1) * (totals @ totals) / len(data) ** 2)


def _no_spread(mean: float, bounds: tuple[float, float], n: int, confidence: float) -> tuple[float, float]:
    unseen = beta_quantile((1 + confidence) / 2, 1.0, float(n))
    low, high = (mean - unseen * (mean - bounds[0]), mean + unseen * (bounds[1] - mean))
    return low, high
