"""Keep the elements whose sign all harmful runs agree on, and average them (NegMerge, arXiv 2410.05583).

tau' = mean_i tau_i * 1[all signs equal]; the paper proposes it for subtracting task vectors
"""

from __future__ import annotations

from collections.abc import Sequence

from prosocial.core.errors import InputError

from .in_torch import in_torch, torch
from .method import Deltas, Prepared, method


def keep_unanimous(mean: torch.Tensor, runs: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the mean delta with zeros where the runs' signs differ or an element of a run is zero.

    Args:
        mean: mean of the runs, fp32.
        runs: delta of each run, fp32, of the same shape.
    """
    positive = torch.stack([run > 0 for run in runs]).all(0)
    negative = torch.stack([run < 0 for run in runs]).all(0)
    return torch.where(positive | negative, mean, 0.0)


@method(elementwise=True)
def prepare(deltas: Deltas) -> Prepared:
    """Check that there are at least two runs.

    Raises:
        InputError: there is only one run, with which the method would have no effect.
    """
    n_runs = len(deltas.runs(deltas.names[0])) if deltas.names else 0
    if n_runs < 2:
        raise InputError(f"negmerge should be given at least two harmful runs, found {n_runs}: give --harmful twice")

    def transform(name: str, delta: torch.Tensor) -> torch.Tensor:
        return keep_unanimous(delta, [torch.from_numpy(run) for run in deltas.runs(name)])

    return Prepared(in_torch(transform), {})
