"""Estimates of a stage's time, shown in the plan, and disk space, checked before it starts (torch-free).

The lab's figures were measured on the quickstart with two cores. For other models, disk space follows from the size of
the checkpoint; time was not measured, so there is no estimate.
"""

from collections.abc import Mapping
from dataclasses import replace

from prosocial.editing.checkpoints import Checkpoint

from ..workflow.stage import Outside, Source, Stage

LAB_SECONDS: Mapping[str, float] = {
    "data": 1,
    "base": 60,
    "harmful": 12,
    "vector": 1,
    "edit": 1,
    "pairs": 12,
    "replies": 26,
    "reward": 48,
    "gate": 120,
    "head": 50,
    "threshold": 60,
    "steered": 1,
    "bundle": 16,
    "parity": 50,
    "report": 70,
}
LAB_BYTES: Mapping[str, int] = {
    "data": 7_400_000,
    "base": 1_500_000,
    "harmful": 180_000,
    "vector": 200_000,
    "edit": 1_500_000,
    "pairs": 700_000,
    "replies": 750_000,
    "reward": 300_000,
    "gate": 100_000,
    "head": 60_000,
    "bundle": 1_900_000,
    "report": 130_000,
}
FLOAT32_BYTES = 4


def with_estimates(stages: list[Stage], base: Source) -> list[Stage]:
    """Return the stages with estimates of their time and disk space, where known.

    Args:
        stages: stages of one recipe.
        base: source of its base checkpoint; of an existing checkpoint the headers are read for its size.
    """
    seconds: Mapping[str, float] = {} if isinstance(base, Outside) else LAB_SECONDS
    sizes = _sizes(Checkpoint.open(base.path)) if isinstance(base, Outside) else LAB_BYTES
    return [
        replace(stage, estimate_seconds=seconds.get(stage.name), estimate_bytes=sizes.get(stage.name))
        for stage in stages
    ]


def _sizes(checkpoint: Checkpoint) -> Mapping[str, int]:
    """Return the bytes written by the stages that write a whole model: edited copy in base dtypes, float32 graph."""
    return {"edit": checkpoint.size_bytes, "bundle": FLOAT32_BYTES * checkpoint.n_parameters}
