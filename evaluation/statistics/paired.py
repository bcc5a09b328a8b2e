"""Paired comparison of two systems on the same probes: exact test, interval, multiple testing and power."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from prosocial.core.errors import InputError

from .distributions import normal_quantile
from .interval import Interval
from .proportions import wilson


class PairedTable(NamedTuple):
    """Counts of pairs with the event in both systems, only before (undone), only after (newly), and in neither."""

    both: float
    undone: float
    newly: float
    neither: float

    @property
    def n(self) -> float:
        """Number of pairs."""
        return sum(self)

    @classmethod
    def of(cls, before: Sequence[bool], after: Sequence[bool]) -> "PairedTable":
        """Return the counts for two sequences of equal length.

        Raises:
            InputError: they are empty or differ in length.

        Examples:
            >>> PairedTable.of([True, True, False], [True, False, False])
            PairedTable(both=1, undone=1, newly=0, neither=1)
        """
        if len(before) != len(after) or not len(before):
            raise InputError(f"before and after should have equally many replies, found {len(before)} and {len(after)}")
        both = sum(1 for old, new in zip(before, after, strict=True) if old and new)
        undone, newly = sum(map(bool, before)) - both, sum(map(bool, after)) - both
        return cls(both, undone, newly, len(before) - both - undone - newly)


def mcnemar_exact(newly: int, undone: int) -> float:
    """Return the exact two-sided p-value of McNemar's test from the two counts of discordant pairs.

    Args:
        newly: number of pairs with the event only after.
        undone: number of pairs with the event only before.

    Examples:
        >>> round(mcnemar_exact(14, 3), 6)
        0.012726
    """
    if newly < 0 or undone < 0:
        raise InputError(f"counts of discordant pairs should not be negative, found {newly} and {undone}")
    n = newly + undone
    tail = sum(math.comb(n, k) for k in range(min(newly, undone) + 1))
    return float(min(1.0, 2 * tail / 2**n))


def newcombe(before: Sequence[bool], after: Sequence[bool], *, confidence: float = 0.95) -> Interval:
    """Return the difference rate(after) - rate(before) with its confidence interval, for independent pairs.

    Source: Newcombe 1998, Statistics in Medicine 17, 2635-2650, method 10 (hybrid score, corrected correlation).

    Raises:
        InputError: the sequences are empty or differ in length.

    Examples:
        >>> difference = newcombe([True] * 48 + [False] * 2, [True] * 36 + [False] * 12 + [True] * 2)
        >>> round(-difference.high, 4), round(-difference.low, 4)
        (0.0569, 0.3404)
    """
    return newcombe_of_table(PairedTable.of(before, after), confidence=confidence)


def newcombe_of_table(table: PairedTable, *, confidence: float = 0.95) -> Interval:
    """Return the result of `newcombe` from the four counts of pairs."""
    n = table.n
    first = wilson(table.both + table.newly, n, confidence=confidence)
    second = wilson(table.both + table.undone, n, confidence=confidence)
    correlation = _corrected_correlation(table)
    low, high = square_and_add(first, second, correlation)
    difference = first.estimate - second.estimate
    return Interval(difference, low, high, int(n), int(n), confidence, "Newcombe paired difference")


def square_and_add(first: Interval, second: Interval, correlation: float) -> tuple[float, float]:
    """Return the limits of first - second from the intervals of two rates and the correlation of their estimates."""
    difference = first.estimate - second.estimate
    down = _hypotenuse(first.estimate - first.low, second.high - second.estimate, correlation)
    up = _hypotenuse(first.high - first.estimate, second.estimate - second.low, correlation)
    return max(-1.0, difference - down), min(1.0, difference + up)


def _corrected_correlation(table: PairedTable) -> float:
    both, undone, newly, neither = table
    scale = (both + undone) * (newly + neither) * (both + newly) * (undone + neither)
    if scale == 0:
        return 0.0
    cross = float(both * neither - undone * newly)
    if cross > 0:
        cross = max(cross - table.n / 2, 0.0)
    return cross / math.sqrt(scale)


def _hypotenuse(first: float, second: float, correlation: float) -> float:
    return math.sqrt(max(0.0, first * first - 2 * correlation * first * second + second * second))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for multiple testing by Holm's method, in the given order (source: Holm 1979).

    Examples:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def minimum_detectable_difference(
    n: float, *, counter_flips: float = 0.02, confidence: float = 0.95, power: float = 0.8
) -> float:
    """Return the smallest difference of two paired rates that `n` pairs detect with the given power.

    Uses the normal approximation of McNemar's test; 1.0 if no difference would be detected.

    Args:
        n: number of independent pairs (the effective sample size for clustered probes).
        counter_flips: share of pairs that change against the direction of the difference.
        confidence: 1 minus the two-sided level of the test.
        power: probability of detecting the difference.

    Examples:
        >>> round(minimum_detectable_difference(200), 3)
        0.063
    """
    if not n > 0:
        raise InputError(f"a difference should be tested on at least one pair, found n = {n}")
    z_level, z_power = normal_quantile((1 + confidence) / 2), normal_quantile(power)

    def seen(difference: float) -> bool:
        discordant = difference + 2 * counter_flips
        spread = math.sqrt(max(0.0, discordant - difference * difference))
        return difference * math.sqrt(n) >= z_level * math.sqrt(discordant) + z_power * spread

    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if seen(middle) else (middle, high)
    return high
