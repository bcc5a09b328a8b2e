"""Planning an edit from headers alone (torch-free): all input errors are raised here, before anything is written."""

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosocial.core.errors import ArtefactError, InputError, StorageError
from prosocial.core.files import require_new, require_outside
from prosocial.core.resumable import left_over_bytes

from ..checkpoints.digests import digest_tensor
from ..checkpoints.folder import INDEX_NAME, Checkpoint
from ..checkpoints.header import TensorInfo
from ..checkpoints.links import require_inside
from ..checkpoints.quantised import refuse_quantised
from ..checkpoints.tied import share_rows
from ..vectors.folder import VectorFolder
from .record import RECORD_NAME
from .scaling import Scale, ScaledGroup, resolve_scale

EDITABLE = ("F32", "F16", "BF16")
BUFFER_BYTES, F32_BYTES = 4 << 20, 4
SPARE_BYTES = 16 << 20  # for the record, and for side files that fill whole disk blocks


@dataclass(frozen=True)
class EditPlan:
    """A validated edit: out = target - coefficient * delta for the edited tensors, a copy of the target for all others.

    Attributes:
        target: the checkpoint to edit; its files, tensor names, order and sharding are kept.
        vector: the harm vector to subtract.
        groups: groups of tensors with the same coefficient.
        coefficients: coefficient by tensor name, for coefficients above 0 only; all other tensors are copied.
        side_files: relative paths of the files that are copied unchanged.
        left_out: relative paths of files that describe the unedited weights and are not copied.
    """

    target: Checkpoint
    vector: VectorFolder
    groups: tuple[ScaledGroup, ...]
    coefficients: Mapping[str, float]
    side_files: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def write_bytes(self) -> int:
        """Number of bytes that the edit writes."""
        sizes = self.target.place.files()
        sides = sum(sizes[path] for path in self.copied_files)
        return sides + sum(header.size_bytes for header in self.target.headers.values())

    @property
    def read_bytes(self) -> int:
        """Number of bytes that the edit reads."""
        return self.write_bytes + (self.vector.size_bytes if self.coefficients else 0)

    @property
    def memory_bytes(self) -> int:
        """Memory in bytes that each thread needs, without the interpreter.

        It consists of buffers of a fixed size and of the largest delta that is stored as low-rank factors.
        """
        made = (self.vector.shape(name) for name in self.coefficients if name in self.vector.factors)
        return BUFFER_BYTES + 2 * F32_BYTES * max(map(math.prod, made), default=0)

    @property
    def notes(self) -> tuple[str, ...]:
        """Rows of the vocabulary that the edit leaves as they are, in words."""
        pairs = ((name, self.target.tensors[name].shape, self.vector.shape(name)) for name in self.coefficients)
        return tuple(
            f"{name}: the {min(ours[0], theirs[0])} rows shared with the vector are edited"
            + (f", the {ours[0] - theirs[0]} new rows stay" if ours[0] > theirs[0] else "")
            for name, ours, theirs in pairs
            if ours != theirs
        )

    @property
    def copied_files(self) -> tuple[str, ...]:
        """Relative paths of all files that are copied unchanged, including the index."""
        index = (INDEX_NAME,) if INDEX_NAME in self.target.place.files() else ()
        return self.side_files + index

    def check_destination(self, out: Path | str) -> None:
        """Check that `out` can be written.

        Raises:
            InputError: it exists and is not an empty folder, or is inside the target or the vector folder.
            StorageError: there is not enough disk space.
        """
        out = Path(out)
        require_new(out)
        require_outside(out, (self.target.folder, self.vector.folder))
        place = next(folder for folder in out.absolute().parents if folder.exists())
        free = shutil.disk_usage(place).free + left_over_bytes(out)
        needed = self.write_bytes + SPARE_BYTES
        if free < needed:
            raise StorageError(
                f"{place} should have {needed:,} bytes free for this edit, found {free:,}; free space there"
            )

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        rows = [self._row(tensor) for tensor in self.target.tensors.values()]
        return {
            "n_edited": len(self.coefficients),
            "n_copied": len(rows) - len(self.coefficients),
            "n_matched": len(self.vector.names),
            "n_missing": 0,  # a vector with a tensor that the target lacks is an error
            "n_extra": len(rows) - len(self.vector.names),
            "notes": list(self.notes),
            "tied": list(self.target.tied.stored) if self.target.tied.tied else [],
            "dtypes": self.target.n_by_dtype,
            "read_bytes": self.read_bytes,
            "write_bytes": self.write_bytes,
            "memory_bytes": self.memory_bytes,
            "coefficients": [
                {"pattern": group.pattern, "coefficient": group.coefficient, "n_tensors": len(group.names)}
                for group in self.groups
            ],
            "side_files": list(self.side_files),
            "left_out": list(self.left_out),
            "tensors": rows,
        }

    def _row(self, tensor: TensorInfo) -> dict[str, Any]:
        coefficient = self.coefficients.get(tensor.name, 0.0)
        action = "edited" if coefficient else "copied"
        return {
            "name": tensor.name,
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "action": action,
            "coefficient": coefficient,
        }


def plan_edit(target: Checkpoint, vector: Path | str, *, scale: Scale) -> EditPlan:
    """Plan and validate the subtraction of a harm vector from a checkpoint.

    It reads headers, `vector.json` and a few small tensors of the target, which show whether the target is the harmful
    parent itself.

    Args:
        target: the checkpoint to edit.
        vector: folder of the harm vector.
        scale: one finite number, at least 0, or another form of `Scale` (see `resolve_scale`).

    Raises:
        ArtefactError: the target is quantised, is the vector's harmful parent or holds a link out of its folder, or the
            vector folder is broken.
        InputError: a tensor of the vector is missing in the target or has another shape or dtype there; tied copies
            would differ after the edit; the scale is invalid.
    """
    refuse_quantised(target)
    if target.unusual:
        raise ArtefactError(
            f"{target.folder} should store every tensor once, with an index if it is sharded, found "
            f"{target.unusual[0]}; load the model and write it with save_pretrained"
        )
    read = {*target.headers, *target.side_files, INDEX_NAME, RECORD_NAME}
    require_inside(target.folder, sorted(read & set(target.place.files())))
    stored = VectorFolder.open(vector)
    _check_names(target, stored)
    _check_shapes(target, stored)
    groups = resolve_scale(scale, [name for name in stored.names if name in target.tensors])
    coefficients = {name: group.coefficient for group in groups for name in group.names if group.coefficient > 0}
    _check_tied(target, coefficients)
    _refuse_harmful(target, stored)
    return EditPlan(target, stored, groups, coefficients, tuple(target.side_files), tuple(target.bound_files))


def redundant_copies(target: Checkpoint, vector: VectorFolder) -> frozenset[str]:
    """Return the vector's second copy of a tied matrix that the target stores once, if the copies are equal."""
    absent, stored = target.tied.absent, target.tied.stored
    copies = [name for name in vector.names if absent and name.endswith(absent) and name not in target.tensors]
    held = [name for name in stored if name in vector.names]
    if len(copies) != 1 or not held or vector.digests(copies[0]) != vector.digests(held[0]):
        return frozenset()
    return frozenset(copies)


def _check_names(target: Checkpoint, vector: VectorFolder) -> None:
    missing = [name for name in vector.names if name not in target.tensors]
    if not set(missing) - redundant_copies(target, vector):
        return
    absent = target.tied.absent
    tied = [name for name in missing if absent and name.endswith(absent)]
    remedy = "make the vector for this architecture"
    if tied:
        stored = ", ".join(target.tied.stored)
        remedy = f"the target ties {tied[0]} to {stored} and stores only that: make the vector from tied parents"
    raise InputError(
        f"{target.folder} should hold every tensor of the vector: {len(missing)} missing, such as {missing[0]!r}; "
        f"{remedy}"
    )


def _check_shapes(target: Checkpoint, vector: VectorFolder) -> None:
    for name in (name for name in vector.names if name in target.tensors):
        tensor, expected = target.tensors[name], vector.shape(name)
        if tensor.shape != expected and not share_rows(name, tensor.shape, expected):
            raise InputError(
                f"{name} of {target.folder} should have the vector's shape {expected}, found {tensor.shape}; "
                "make the vector for this architecture and vocabulary"
            )
        if tensor.dtype not in EDITABLE:
            raise InputError(
                f"{name} of {target.folder} should have dtype {', '.join(EDITABLE)}, found {tensor.dtype}; save the "
                "model in one of these dtypes"
            )


def _check_tied(target: Checkpoint, coefficients: Mapping[str, float]) -> None:
    """Check that two stored copies of tied embeddings get the same coefficient; otherwise the edit would untie them."""
    copies = target.tied.copies
    if copies and coefficients.get(copies[0]) != coefficients.get(copies[1]):
        raise InputError(
            f"{target.folder} ties {copies[0]} and {copies[1]} and stores both, an edit should change both with one "
            "coefficient: give both one scale; to change one alone, first write tie_word_embeddings: false into its "
            "config.json, which makes them two matrices for good"
        )


def _refuse_harmful(target: Checkpoint, vector: VectorFolder) -> None:
    """Check by digests, smallest tensors first, that the target is not one of the vector's harmful parents."""
    smallest_first = sorted(
        (name for name in vector.names if name in target.tensors), key=lambda name: target.tensors[name].size_bytes
    )
    for expected in vector.description.harmful_digests:
        names = (name for name in smallest_first if name in expected)
        if all(digest_tensor(target.tensors[name]).blake3 == expected[name] for name in names):
            raise ArtefactError(
                f"{target.folder} should be the model to make safer, it is a harmful parent of the vector "
                f"({vector.description.harmful_fingerprint[:16]}): give the base or a model trained from it"
            )
