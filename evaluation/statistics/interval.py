"""An estimate with its interval."""

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Interval:
    """An estimate with a confidence interval and what it rests on.

    Attributes:
        estimate: the observed rate, mean or difference.
        low, high: the limits of the interval.
        n: number of observations (replies or pairs of replies).
        n_clusters: number of independent units among them (topics); equal to `n` where each stands alone.
        confidence: nominal coverage, such as 0.95.
        method: the name of the method, for the report's list of methods.
        conservative: limits that count each cluster as one observation; given where the data show no spread, so that
            nothing is known of how alike the replies of one cluster are.
    """

    estimate: float
    low: float
    high: float
    n: int
    n_clusters: int
    confidence: float = 0.95
    method: str = ""
    conservative: tuple[float, float] | None = None

    def excludes(self, value: float) -> bool:
        """Return whether `value` lies outside the interval and outside its conservative limits."""
        low, high = self.widest()
        return not low <= value <= high

    def widest(self) -> tuple[float, float]:
        """Return the limits that hold under either reading: the plain and the conservative ones together."""
        if self.conservative is None:
            return self.low, self.high
        return min(self.low, self.conservative[0]), max(self.high, self.conservative[1])

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON; a limit that is infinite (nothing is known) becomes null."""
        found: dict[str, Any] = {
            "estimate": finite(self.estimate),
            "low": finite(self.low),
            "high": finite(self.high),
            "n": self.n,
            "n_clusters": self.n_clusters,
            "confidence": self.confidence,
            "method": self.method,
        }
        if self.conservative is not None:
            found["conservative"] = [finite(limit) for limit in self.conservative]
        return found


def finite(value: float) -> float | None:
    """Return `value` rounded to 9 decimals, or None if it is not finite (JSON has no infinity)."""
    return round(float(value), 9) + 0.0 if math.isfinite(value) else None


def scientific(value: float) -> float | None:
    """Return a number with six significant digits, or None if it is not finite."""
    return None if finite(value) is None else float(f"{value:.6g}")
