"""Monotonicity: whether raising an attribute's weight raises its score, at every step along its ray."""

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
    """One step along an attribute's ray, on which its weight increases and the others share the rest.

    Attributes:
        attribute: name of the attribute.
        before: its weight before the step.
        after: its weight after the step.
        change: change of its mean score, paired by probe.
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
    """Return every step of every attribute, with bootstrap intervals over runs and topics.

    Args:
        runs: scores of one system for each training run; with a single run, only its topics are resampled.
        grid: grid that the runs were scored on.
        seed: seed of the bootstrap.
        draws: number of bootstrap resamples.
        confidence: nominal coverage.

    Raises:
        InputError: there is no run, or a run was not scored on this grid.
    """
    if not runs:
        raise InputError("monotone_steps should have the scores of at least one run, found none")
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
    intervals = hierarchical_bootstrap(clusters, mean_changes, seed=seed, draws=draws, confidence=confidence)
    return [MonotoneStep(name, low, high, change) for (name, low, high), change in intervals.items()]


def is_monotone(steps: Sequence[MonotoneStep]) -> bool:
    """Return whether no step lowers the mean score of its attribute."""
    return all(step.change.estimate >= 0 for step in steps)
