"""The incomplete beta function and the quantiles computed from it, with the standard library only."""

import math
from functools import lru_cache
from statistics import NormalDist

BISECTIONS = 56  # enough for the last bit of a float near 1


def normal_quantile(probability: float) -> float:
    """Return the quantile of the standard normal distribution."""
    return NormalDist().inv_cdf(probability)


def incomplete_beta(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), the distribution function of Beta(a, b).

    Source: DLMF 8.17.22 (continued fraction, evaluated from its tail) and 8.17.4 (symmetry).

    Examples:
        >>> round(incomplete_beta(0.5, 2.0, 2.0), 12)
        0.5
    """
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast only below the mean
        return 1.0 - incomplete_beta(1.0 - x, b, a)
    log_front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(log_front) / a / _continued_fraction(x, a, b)


def _continued_fraction(x: float, a: float, b: float) -> float:
    depth = 16 + int(2 * math.sqrt(max(a, b)))
    value = 1.0
    for m in range(depth, -1, -1):
        odd = -(a + m) * (a + b + m) / ((a + 2 * m) * (a + 2 * m + 1)) * x
        value = 1.0 + odd / value
        if m:
            even = m * (b - m) / ((a + 2 * m - 1) * (a + 2 * m)) * x
            value = 1.0 + even / value
    return value


@lru_cache(maxsize=4096)
def beta_quantile(probability: float, a: float, b: float) -> float:
    """Return the quantile of Beta(a, b), by bisection.

    Examples:
        >>> round(beta_quantile(0.5, 3.0, 3.0), 9)
        0.5
    """
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if incomplete_beta(middle, a, b) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def student_quantile(probability: float, degrees_of_freedom: float) -> float:
    """Return the quantile of Student's t distribution, from P(|T| > t) = I_{v / (v + t^2)}(v / 2, 1 / 2).

    Examples:
        >>> round(student_quantile(0.975, 10), 4)
        2.2281
    """
    if probability < 0.5:
        return -student_quantile(1.0 - probability, degrees_of_freedom)
    if probability == 0.5:
        return 0.0
    x = beta_quantile(2 * (1.0 - probability), degrees_of_freedom / 2, 0.5)
    return math.sqrt(degrees_of_freedom * (1.0 - x) / x)
