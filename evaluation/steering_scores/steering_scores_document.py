"""What is reported of steering: every number, with the reference point and the normalisation that it hangs on."""

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
NORMALISATION = "none: the judge's scores lie in [0, 1] on every attribute, and means of them are compared"


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
        scores: by system, each of the same probes at every point of the grid.
        reference: the point that the hypervolume is measured from; None: 0 on every axis.
        unsteered: the same probes answered without steering; None: gains are left out.
        draws, seed: of the bootstrap behind the intervals of steps.

    Raises:
        InputError: there is no system, or the systems answered different probes.
    """
    if not scores or len({found.clusters for found in scores.values()}) != 1:
        raise InputError(f"systems should have answered the same probes, found {sorted(scores) or 'no system'}")
    origin = [0.0] * len(grid.attributes) if reference is None else [float(value) for value in reference]
    return {
        "schema": SCHEMA,
        "attributes": list(grid.attributes),
        "preferences": [list(point) for point in grid.points],
        "n_probes": len(next(iter(scores.values())).clusters),
        "reference": origin,
        "normalisation": NORMALISATION,
        "systems": {
            name: _system(found, grid, origin, unsteered, draws=draws, seed=seed) for name, found in scores.items()
        },
    }


def _system(
    found: GridScores,
    grid: PreferenceGrid,
    reference: Sequence[float],
    unsteered: GridScores | None,
    *,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    means = found.means()[[found.at(point) for point in grid.points]]  # in the grid's order
    steps = monotone_steps([found], grid, seed=seed, draws=draws)
    return {
        "hypervolume": hypervolume(means, reference),
        "mean_inner_product": mean_inner_product(grid.points, means),
        "means": np.round(means, 6).tolist(),
        "monotone": is_monotone(steps),
        "steps": [step.to_json() for step in steps],
        "gains": {} if unsteered is None else _gains(found, grid, unsteered),
    }


def _gains(found: GridScores, grid: PreferenceGrid, unsteered: GridScores) -> dict[str, Any]:
    """Return, by attribute, what its corner gains over no steering, paired by probe."""
    return {
        name: clustered_difference(
            unsteered.values[0, :, index].tolist(),
            found.values[found.at(grid.corner(index)), :, index].tolist(),
            found.clusters,
        ).to_json()
        for index, name in enumerate(grid.attributes)
    }
