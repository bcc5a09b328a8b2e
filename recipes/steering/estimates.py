"""What a stage takes: time for the plan that people read, disk for the check before it starts (torch-free).

The lab's figures were measured on the quickstart (two cores). Nobody has measured the time of another model, so none is
given; its disk follows from the size of its checkpoint.
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
    """Return the stages with what is known of their time and disk.

    Args:
        stages: of one recipe.
        base: where its base checkpoint comes from; one outside is read for its size (headers only).
    """
    seconds: Mapping[str, float] = {} if isinstance(base, Outside) else LAB_SECONDS
    sizes = _sizes(Checkpoint.open(base.path)) if isinstance(base, Outside) else LAB_BYTES
    return [
        replace(stage, estimate_seconds=seconds.get(stage.name), estimate_bytes=sizes.get(stage.name))
        for stage in stages
    ]


def _sizes(checkpoint: Checkpoint) -> Mapping[str, int]:
    """Disk of the stages that write a whole model: the edited copy in the base's dtypes, the graph in float32."""
    return {"edit": checkpoint.size_bytes, "bundle": FLOAT32_BYTES * checkpoint.n_parameters}
