"""Measures the agreement of two judges, corrected for agreement by chance."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Agreement:
    """The agreement of two judges on the same items.

    Attributes:
        n: number of items that both judges labelled.
        share: fraction of those items with the same label; None if there are no items.
        kappa: Cohen's kappa (1960): 1 is full agreement, 0 is the agreement of independent judges with the same label
            frequencies; None where it is undefined, without items or with a single label.
    """

    n: int
    share: float | None
    kappa: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the agreement as JSON values."""
        return asdict(self)


def agreement(first: Sequence[Hashable | None], second: Sequence[Hashable | None]) -> Agreement:
    """Return the agreement of two judges' labels, over the items to which both gave a label (not None).

    Examples:
        >>> result = agreement(["a"] * 25 + ["b"] * 25, ["a"] * 20 + ["b"] * 5 + ["a"] * 10 + ["b"] * 15)
        >>> result.share, round(result.kappa, 6)
        (0.7, 0.4)
    """
    both = [(one, other) for one, other in zip(first, second, strict=True) if one is not None and other is not None]
    n = len(both)
    if not n:
        return Agreement(0, None, None)
    alike = sum(one == other for one, other in both)
    ones, others = Counter(one for one, _ in both), Counter(other for _, other in both)
    by_chance = sum(count * others[label] for label, count in ones.items())  # times n^2
    kappa = None if by_chance == n * n else (alike * n - by_chance) / (n * n - by_chance)
    return Agreement(n, alike / n, kappa)
