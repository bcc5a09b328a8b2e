"""Pareto dominance of trials (pure functions)."""

from collections.abc import Sequence


def dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    """Return whether `first` is at most `second` in every objective and smaller in at least one.

    Examples:
        >>> dominates((0.1, 2.0), (0.2, 2.0)), dominates((0.1, 2.0), (0.1, 2.0))
        (True, False)
    """
    pairs = list(zip(first, second, strict=True))
    return all(one <= other for one, other in pairs) and any(one < other for one, other in pairs)


def pareto_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Return the indices of the points that no other point dominates, in order; all objectives are minimised.

    Points that are equal in every objective do not dominate each other.

    Examples:
        >>> pareto_front([(1.0, 3.0), (2.0, 2.0), (2.0, 4.0), (3.0, 1.0)])
        [0, 1, 3]
    """
    return [index for index, point in enumerate(points) if not any(dominates(other, point) for other in points)]
