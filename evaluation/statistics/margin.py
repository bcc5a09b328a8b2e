"""Is it no worse? "No difference was seen" does not say so; an interval that stays inside a margin does."""

from dataclasses import dataclass
from typing import Any, Literal

from prosocial.core.errors import InputError

from .interval import Interval, finite

Finding = Literal["no worse", "worse", "cannot say"]


@dataclass(frozen=True)
class NonInferiority:
    """Whether a loss stays inside a margin.

    Attributes:
        finding: `no worse` where the largest loss that the interval allows is below the margin, `worse` where even the
            smallest is above it, else `cannot say`.
        margin: the loss that would be accepted, such as 0.05.
        largest_loss: the largest loss that the interval allows, at its widest reading: the margin that would pass.
        level: one-sided level of the test, half of what the interval leaves out.
    """

    finding: Finding
    margin: float
    largest_loss: float
    level: float

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "finding": self.finding,
            "margin": finite(self.margin),
            "largest_loss": finite(self.largest_loss),
            "level": finite(self.level),
        }


def non_inferiority(
    difference: Interval, *, margin: float, better: Literal["lower", "higher"] = "higher"
) -> NonInferiority:
    """Return whether a system is worse than the reference by less than `margin`.

    Source: the confidence interval approach of ICH E9, 3.3.2; the one-sided half of two one-sided tests (Schuirmann
    1987).

    Args:
        difference: rate minus the reference's rate, with its interval.
        margin: the loss that would be accepted, above 0.
        better: which way is better.

    Raises:
        InputError: the margin is not in (0, 1].

    Example:
        >>> non_inferiority(Interval(-0.01, -0.03, 0.01, 400, 400), margin=0.05).finding
        'no worse'
    """
    if not 0 < margin <= 1:
        raise InputError(f"a non-inferiority margin should be above 0 and at most 1, found {margin}")
    low, high = difference.widest()
    largest, smallest = (-low, -high) if better == "higher" else (high, low)
    finding: Finding = "no worse" if largest < margin else "worse" if smallest > margin else "cannot say"
    return NonInferiority(finding, margin, largest, (1 - difference.confidence) / 2)
