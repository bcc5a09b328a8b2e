"""Which trials no other trial beats (pure functions)."""

from collections.abc import Sequence


def dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether `first` is nowhere larger than `second`, and somewhere smaller.

    Example:
        >>> dominates((0.1, 2.0), (0.2, 2.0)), dominates((0.1, 2.0), (0.1, 2.0))
        (True, False)
    """
    pairs = list(zip(first, second, strict=True))
    return all(one <= other for one, other in pairs) and any(one < other for one, other in pairs)


def pareto_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Return the positions of the points that none dominates, in order; all objectives are minimised.

    Points that are equal in every objective stay together.

    Example:
        >>> pareto_front([(1.0, 3.0), (2.0, 2.0), (2.0, 4.0), (3.0, 1.0)])
        [0, 1, 3]
    """
    return [index for index, point in enumerate(points) if not any(dominates(other, point) for other in points)]
