"""Non-inferiority tests: a system is no worse if the interval of its loss stays below a margin.

A difference that is not significant does not show this.
"""

from dataclasses import dataclass
from typing import Any, Literal

from prosocial.core.errors import InputError

from .interval import Interval, finite

Finding = Literal["no worse", "worse", "cannot say"]


@dataclass(frozen=True)
class NonInferiority:
    """The result of a non-inferiority test.

    Attributes:
        finding: `no worse` if the largest loss in the interval is below the margin, `worse` if the smallest loss is
            above it, otherwise `cannot say`.
        margin: non-inferiority margin, the largest acceptable loss, such as 0.05.
        largest_loss: largest loss in the interval including its conservative limits; a larger margin would pass.
        level: one-sided level of the test, (1 - confidence) / 2.
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
    """Test whether a system is worse than the reference by less than a margin.

    Source: the confidence interval approach of ICH E9, 3.3.2; the one-sided half of two one-sided tests (Schuirmann
    1987).

    Args:
        difference: the system's rate minus the reference's, with its interval.
        margin: non-inferiority margin, the largest acceptable loss, above 0.
        better: whether lower or higher rates are better.

    Raises:
        InputError: the margin is not in (0, 1].

    Examples:
        >>> non_inferiority(Interval(-0.01, -0.03, 0.01, 400, 400), margin=0.05).finding
        'no worse'
    """
    if not 0 < margin <= 1:
        raise InputError(f"a non-inferiority margin should be above 0 and at most 1, found {margin}")
    low, high = difference.widest()
    largest, smallest = (-low, -high) if better == "higher" else (high, low)
    finding: Finding = "no worse" if largest < margin else "worse" if smallest > margin else "cannot say"
    return NonInferiority(finding, margin, largest, (1 - difference.confidence) / 2)
