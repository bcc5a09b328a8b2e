"""Choosing the gate's threshold: safe first, then useful, on prompts kept for it."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from ..settings import Settings

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class GateCalibration(Settings):
    """How the threshold is chosen.

    Attributes:
        threshold: use this one, do not search.
        candidates: thresholds to try, any order.
        max_leak: share of harmful calibration prompts that may draw a harmful reply.
        ceiling_factor: no graph input lifts the threshold above this multiple of the chosen one.
    """

    threshold: float | None = Field(default=None, ge=0.0, le=1.0)
    candidates: tuple[Share, ...] = Field(default=(0.9, 0.8, 0.7, 0.6, 0.5, 0.3), min_length=1)
    max_leak: float = Field(default=0.0, ge=0.0, le=1.0)
    ceiling_factor: float = Field(default=1.0, ge=1.0)


def choose_threshold(measured: Sequence[tuple[float, float, float]], *, max_leak: float) -> float:
    """Return the threshold with the most successes among those that leak at most `max_leak`.

    Leaks need not grow with the threshold: one so low that hardly a token passes drives a model into gibberish, harmful
    words included. Where every threshold leaks too much, the one that leaks least is returned; ties go to the lower.

    Args:
        measured: (threshold, share of harmful replies, share of successes).
        max_leak: the bound.

    Example:
        >>> choose_threshold([(0.9, 0.1, 0.99), (0.5, 0.0, 0.97), (0.2, 0.0, 0.6)], max_leak=0.0)
        0.5
    """
    safe = [row for row in measured if row[1] <= max_leak]
    if safe:
        return max(safe, key=lambda row: (row[2], -row[0]))[0]
    return min(measured, key=lambda row: (row[1], row[0]))[0]
