"""Does raising an attribute's weight raise the attribute? Every step along its ray, paired by probe."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from prosocial.core.errors import InputError

from ..statistics.interval import Interval
from .bootstrap import Draw, hierarchical_bootstrap
from .grid import PreferenceGrid
from .scores import GridScores


@dataclass(frozen=True)
class MonotoneStep:
    """One step along an attribute's ray.

    Attributes:
        attribute: whose weight rises from `before` to `after`, the others sharing the rest.
        change: of its mean score, over the same probes.
    """

    attribute: str
    before: float
    after: float
    change: Interval

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "attribute": self.attribute,
            "before": self.before,
            "after": self.after,
            "change": self.change.to_json(),
        }


def monotone_steps(
    runs: Sequence[GridScores], grid: PreferenceGrid, *, seed: int = 0, draws: int = 1000, confidence: float = 0.95
) -> list[MonotoneStep]:
    """Return every step of every attribute, with an interval over runs and topics.

    Args:
        runs: scores of one system, one for each training run (one is enough: its topics alone are then drawn).

    Raises:
        InputError: there is no run, or a run was not scored on this grid.
    """
    if not runs:
        raise InputError("there should be the scores of at least one run, found none")
    changes = {
        (name, low, high): [
            run.values[run.at(after), :, index] - run.values[run.at(before), :, index] for run in runs
        ]  # [n] each
        for index, name in enumerate(grid.attributes)
        for (low, high), (before, after) in zip(pairwise(grid.levels), pairwise(grid.ray(index)), strict=False)
    }

    def mean_changes(draw: Draw) -> dict[Any, float]:
        return {
            step: float(np.mean([change[run] @ weights / weights.sum() for run, weights in draw]))
            for step, change in changes.items()
        }

    clusters = [run.clusters for run in runs]
    found = hierarchical_bootstrap(clusters, mean_changes, seed=seed, draws=draws, confidence=confidence)
    return [MonotoneStep(name, low, high, change) for (name, low, high), change in found.items()]


def is_monotone(steps: Sequence[MonotoneStep]) -> bool:
    """Return whether no step lowers its attribute in the mean."""
    return all(step.change.estimate >= 0 for step in steps)
