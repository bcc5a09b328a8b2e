"""Confidence intervals for a proportion of independent observations."""

import math
from typing import Literal

from prosocial.core.errors import InputError

from .distributions import beta_quantile, normal_quantile
from .interval import Interval

Side = Literal["both", "lower", "upper"]


def wilson(k: float, n: float, *, confidence: float = 0.95) -> Interval:
    """Return Wilson's score interval for `k` events of `n` (source: Wilson 1927).

    Raises:
        InputError: `n` is not positive, or `k` is not in [0, n].

    Examples:
        >>> interval = wilson(10, 100)
        >>> round(interval.low, 4), round(interval.high, 4)
        (0.0552, 0.1744)
    """
    check_counts(k, n)
    z = normal_quantile((1 + confidence) / 2)
    p = k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low = 0.0 if k == 0 else max(0.0, centre - half)
    high = 1.0 if k == n else min(1.0, centre + half)
    return Interval(p, low, high, int(n), int(n), confidence, "Wilson score")


def clopper_pearson(k: float, n: float, *, confidence: float = 0.95, side: Side = "both") -> Interval:
    """Return the exact interval for `k` events of `n`, whose coverage is at least `confidence`.

    `side="upper"` gives the one-sided upper limit (low = 0), `"lower"` the one-sided lower limit (high = 1). Counts
    need not be integers, so that an effective sample size can be used. Source: Clopper and Pearson 1934.

    Raises:
        InputError: `n` is not positive, or `k` is not in [0, n].

    Examples:
        >>> round(clopper_pearson(0, 200).high, 4), round(clopper_pearson(0, 200, side="upper").high, 4)
        (0.0183, 0.0149)
    """
    check_counts(k, n)
    tail = (1 - confidence) / (2 if side == "both" else 1)
    low = 0.0 if k == 0 or side == "upper" else beta_quantile(tail, k, n - k + 1)
    high = 1.0 if k == n or side == "lower" else beta_quantile(1 - tail, k + 1, n - k)
    method = "Clopper-Pearson" if side == "both" else f"Clopper-Pearson, one-sided {side}"
    return Interval(k / n, low, high, int(n), int(n), confidence, method)


def check_counts(k: float, n: float) -> None:
    """Raise InputError unless 0 <= k <= n and n > 0."""
    if not n > 0:
        raise InputError(f"a rate should have at least one observation, found n = {n}")
    if not 0 <= k <= n:
        raise InputError(f"the number of events should be between 0 and n = {n}, found {k}")
