"""The report on steering as one JSON document, with the reference point and normalisation of its numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prosocial.core.errors import InputError

from ..statistics.clustered import clustered_difference
from .grid import PreferenceGrid
from .monotonicity import is_monotone, monotone_steps
from .scores import GridScores
from .volume import hypervolume, mean_inner_product

SCHEMA = "prosocial.steering/1"
NORMALISATION = "none: the judge's scores are in [0, 1] for every attribute, and their means are compared"


def steering_document(
    scores: Mapping[str, GridScores],
    grid: PreferenceGrid,
    *,
    reference: Sequence[float] | None = None,
    unsteered: GridScores | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the report on one or more systems as plain JSON.

    Args:
        scores: scores by system, each of the same probes at every point of the grid.
        grid: preference grid.
        reference: reference point of the hypervolume; None for the origin.
        unsteered: scores of the same probes without steering; None to leave gains out.
        draws: number of bootstrap resamples for the intervals of steps.
        seed: seed of the bootstrap.

    Raises:
        InputError: there is no system, or the systems answered different probes.
    """
    if not scores or len({own.clusters for own in scores.values()}) != 1:
        raise InputError(
            f"systems should have scores on the same probes, found {sorted(scores) or 'no system'} with different ones"
        )
    origin = [0.0] * len(grid.attributes) if reference is None else [float(value) for value in reference]
    return {
        "schema": SCHEMA,
        "attributes": list(grid.attributes),
        "preferences": [list(point) for point in grid.points],
        "n_probes": len(next(iter(scores.values())).clusters),
        "reference": origin,
        "normalisation": NORMALISATION,
        "systems": {
            name: _system(own, grid, origin, unsteered, draws=draws, seed=seed) for name, own in scores.items()
        },
    }


def _system(
    scores: GridScores,
    grid: PreferenceGrid,
    reference: Sequence[float],
    unsteered: GridScores | None,
    *,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    means = scores.means()[[scores.at(point) for point in grid.points]]  # in the grid's order
    steps = monotone_steps([scores], grid, seed=seed, draws=draws)
    return {
        "hypervolume": hypervolume(means, reference),
        "mean_inner_product": mean_inner_product(grid.points, means),
        "means": np.round(means, 6).tolist(),
        "monotone": is_monotone(steps),
        "steps": [step.to_json() for step in steps],
        "gains": {} if unsteered is None else _gains(scores, grid, unsteered),
    }


def _gains(scores: GridScores, grid: PreferenceGrid, unsteered: GridScores) -> dict[str, Any]:
    """Return the gain of each attribute with all weight on it over no steering, paired by probe."""
    return {
        name: clustered_difference(
            unsteered.values[0, :, index].tolist(),
            scores.values[scores.at(grid.corner(index)), :, index].tolist(),
            scores.clusters,
        ).to_json()
        for index, name in enumerate(grid.attributes)
    }
