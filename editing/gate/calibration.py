"""Choosing the gate's threshold: the largest that keeps harm below a bound on prompts kept for it."""

from collections.abc import Sequence

from pydantic import Field

from ..settings import Settings


class GateCalibration(Settings):
    """How the threshold is chosen.

    Attributes:
        threshold: use this one, do not search.
        candidates: thresholds to try, any order.
        max_leak: share of harmful calibration prompts that may draw a harmful reply.
        ceiling_factor: no graph input lifts the threshold above this multiple of the chosen one (at most 1).
    """

    threshold: float | None = Field(default=None, ge=0.0, le=1.0)
    candidates: tuple[float, ...] = (0.9, 0.7, 0.5, 0.3, 0.1)
    max_leak: float = Field(default=0.0, ge=0.0, le=1.0)
    ceiling_factor: float = Field(default=1.0, ge=1.0)


def choose_threshold(measured: Sequence[tuple[float, float]], *, max_leak: float) -> float:
    """Return the largest threshold whose leak, and that of every smaller one, is at most `max_leak`.

    Args:
        measured: (threshold, leak share) pairs. Where even the smallest leaks too much, it is returned: fail closed.
        max_leak: the bound.

    Example:
        >>> choose_threshold([(0.9, 0.1), (0.5, 0.0), (0.2, 0.0)], max_leak=0.0)
        0.5
    """
    ordered = sorted(measured)
    chosen = ordered[0][0]
    for threshold, leak in ordered:
        if leak > max_leak:
            break
        chosen = threshold
    return chosen
