"""How far two judges agree beyond what their label frequencies alone would give."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Agreement:
    """Two judges on the same items.

    Attributes:
        n: items that both labelled.
        share: of them labelled alike; None without items.
        kappa: Cohen's kappa (1960): 1 is full agreement, 0 that of two judges who draw their labels independently with
            the frequencies found; None where it is not defined: no items, or one label throughout.
    """

    n: int
    share: float | None
    kappa: float | None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return asdict(self)


def agreement(first: Sequence[Hashable | None], second: Sequence[Hashable | None]) -> Agreement:
    """Return the agreement of two judges' labels; items that one of them gave no label (None) are left out.

    Example:
        >>> found = agreement(["a"] * 25 + ["b"] * 25, ["a"] * 20 + ["b"] * 5 + ["a"] * 10 + ["b"] * 15)
        >>> found.share, round(found.kappa, 6)
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
