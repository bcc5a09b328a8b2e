"""An estimate with its confidence interval."""

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval, sample size and method.

    Attributes:
        estimate: the observed rate, mean or difference.
        low: lower limit.
        high: upper limit.
        n: number of observations (replies or pairs of replies).
        n_clusters: number of clusters (topics); equal to `n` if all observations are independent.
        confidence: nominal coverage, such as 0.95.
        method: name of the method, for the report's list of methods.
        conservative: limits that count each cluster as one observation; given if all observations agree, because the
            correlation within clusters is then unknown.
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
        """Return whether `value` is outside both the interval and its conservative limits."""
        low, high = self.widest()
        return not low <= value <= high

    def widest(self) -> tuple[float, float]:
        """Return the union of the interval and its conservative limits."""
        if self.conservative is None:
            return self.low, self.high
        return min(self.low, self.conservative[0]), max(self.high, self.conservative[1])

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON; an infinite limit becomes null."""
        row: dict[str, Any] = {
            "estimate": finite(self.estimate),
            "low": finite(self.low),
            "high": finite(self.high),
            "n": self.n,
            "n_clusters": self.n_clusters,
            "confidence": self.confidence,
            "method": self.method,
        }
        if self.conservative is not None:
            row["conservative"] = [finite(limit) for limit in self.conservative]
        return row


def finite(value: float) -> float | None:
    """Return `value` rounded to 9 decimals, or None if it is not finite (JSON has no infinity)."""
    return round(float(value), 9) + 0.0 if math.isfinite(value) else None


def scientific(value: float) -> float | None:
    """Return a number with six significant digits, or None if it is not finite."""
    return None if finite(value) is None else float(f"{value:.6g}")
