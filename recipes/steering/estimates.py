"""Estimates of a stage's time, memory and disk space, shown in the plan; disk space is checked too (torch-free).

The lab's figures were measured on the quickstart with two cores. Of another model only disk space is known unmeasured,
from the size of the checkpoint; for the rest see `workload.py`.
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
LAB_MEMORY_BYTES: Mapping[str, int] = {"data": 120_000_000, "gate": 1_380_000_000, "parity": 1_380_000_000}
LAB_TYPICAL_MEMORY_BYTES = 800_000_000
FLOAT32_BYTES = 4


def with_estimates(stages: list[Stage], base: Source) -> list[Stage]:
    """Return the stages with estimates of their time, memory and disk space, as far as they are known unmeasured.

    Args:
        stages: stages of one recipe.
        base: source of its base checkpoint; of an existing checkpoint the headers are read for its size.
    """
    if isinstance(base, Outside):
        sizes = _sizes(Checkpoint.open(base.path))
        return [replace(stage, estimate_bytes=sizes.get(stage.name)) for stage in stages]
    return [
        replace(
            stage,
            estimate_seconds=LAB_SECONDS.get(stage.name),
            estimate_bytes=LAB_BYTES.get(stage.name),
            estimate_memory_bytes=LAB_MEMORY_BYTES.get(stage.name, LAB_TYPICAL_MEMORY_BYTES),
        )
        for stage in stages
    ]


def _sizes(checkpoint: Checkpoint) -> Mapping[str, int]:
    """Return the bytes written by the stages that write a whole model: edited copy in base dtypes, float32 graph."""
    return {"edit": checkpoint.size_bytes, "bundle": FLOAT32_BYTES * checkpoint.n_parameters}
