"""A harm vector subtracted from a checkpoint in one call: plan, check, apply, record (torch-free)."""

from pathlib import Path

from ..checkpoints.folder import Checkpoint
from .apply import apply_edit
from .plan import plan_edit
from .record import EditRecord
from .rounding import NEAREST, Rounding
from .scaling import Scale
from .writing import Progress


def subtract(
    target: Path | str | Checkpoint,
    vector: Path | str,
    out: Path | str,
    *,
    scale: Scale = 1.0,
    rounding: Rounding = NEAREST,
    patch: Path | str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> EditRecord:
    """Write `target - scale * vector` to a new folder and return its edit record.

    This is `plan_edit` and `apply_edit` in one call; `undo_edit` takes it back, bit for bit.

    Args:
        target: the checkpoint to edit.
        vector: folder of the harm vector.
        out: the new checkpoint folder.
        scale: one number, at least 0, for all tensors; numbers by regular expression; a `Ramp` over the layers; or
            `Coefficients` by tensor name.
        rounding: to nearest, or stochastic with a seed.
        patch: a new file from which the edit can be undone without the base.
        threads: number of workers; None takes one per core. No byte depends on it.
        progress: called after each tensor with the bytes done and the bytes in all.

    Raises:
        ArtefactError: the target is quantised, or a folder is broken.
        InputError: vector, scale and target do not fit together, or `out` exists.
        StorageError: not enough room, no permission, or other bytes came back than were written.
    """
    checkpoint = target if isinstance(target, Checkpoint) else Checkpoint.open(target)
    plan = plan_edit(checkpoint, vector, scale=scale)
    return apply_edit(plan, out, progress, threads=threads, rounding=rounding, patch=patch)
