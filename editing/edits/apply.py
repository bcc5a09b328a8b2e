"""Carry out a planned edit: tensor by tensor on several threads, written aside, read again, renamed (torch-free)."""

import hashlib
import math
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from prosocial.core.errors import InputError
from prosocial.core.files import canonical_json, read_json, sha256_file, write_json
from prosocial.core.resumable import resumable_folder

from ..checkpoints.digests import TensorDigest, combine
from ..checkpoints.folder import Checkpoint
from ..vectors.description import DESCRIPTION_NAME, WEIGHTS_NAME
from .arithmetic import ARITHMETIC
from .patch import write_patch
from .plan import EditPlan
from .realised import require_subtraction
from .record import RECORD_NAME, Base, Coefficient, EditRecord, Result, TensorResult, Term
from .rounding import NEAREST, Rounding
from .tensor_edit import WrittenTensor
from .writing import Progress, Writing


def apply_edit(
    plan: EditPlan,
    out: Path | str,
    progress: Progress | None = None,
    *,
    threads: int | None = None,
    rounding: Rounding = NEAREST,
    verify: bool = True,
    link: bool = False,
    sync: bool = True,
    patch: Path | str | None = None,
) -> EditRecord:
    """Write the edited checkpoint to `out`, with its `edit_record.json`.

    Headers, names, order and sharding are the target's, byte for byte; so are tensors that are not edited, and the side
    files. Memory does not depend on the size of the model (low-rank deltas are multiplied out one tensor at a time),
    and no byte depends on the number of threads. A process that was killed leaves its work beside `out`, and the next
    one with the same plan takes it up.

    Args:
        plan: a checked edit.
        out: the new folder.
        progress: called after each tensor with the bytes done and the bytes in all.
        threads: number of workers; None takes one per core.
        rounding: to nearest, or stochastic with a seed.
        verify: read again what was written.
        link: hard-link weight files in which nothing is edited, instead of cloning or copying them.
        sync: flush to disk before `out` gets its name; without, a power cut may leave it broken.
        patch: a new file beside which nothing else is needed to undo the edit.

    Raises:
        InputError: `out` exists or is being written; a result is NaN or infinite; tied copies came apart.
        StorageError: not enough room, no permission, or other bytes came back than were written.
    """
    out, patch = Path(out), None if patch is None else Path(patch)
    plan.check_destination(out)
    if patch is not None and patch.exists():
        raise InputError(f"{patch} should be a new file: choose another name or delete it first")
    with resumable_folder(out, key=_key(plan, rounding), sync=sync) as aside:
        writing = Writing(plan, aside, rounding=rounding, verify=verify, sync=sync, link=link, threads=threads)
        written = writing.run(progress or (lambda done, size: None))
        _check_tied(plan, written)
        inner_product = math.fsum(item.realised.inner_product for item in written.values() if item.realised)
        require_subtraction(inner_product)
        sides = _copy_files(plan, aside)
        record = _record(plan, written, rounding, inner_product, sides, writing.vector_blake3)
        if patch is not None:
            write_patch(plan.target, Checkpoint.open(aside), patch, record)
        write_json(aside / RECORD_NAME, record.to_json())
        writing.forget()
    return record


def _key(plan: EditPlan, rounding: Rounding) -> str:
    """Return a digest of everything that the bytes written depend on; files by size and time of change."""
    weights = [plan.target.folder / name for name in (*plan.target.headers, *plan.copied_files)]
    stored = [plan.vector.folder / name for name in (DESCRIPTION_NAME, WEIGHTS_NAME)]
    files = {str(path.resolve()): (path.stat().st_size, path.stat().st_mtime_ns) for path in (*weights, *stored)}
    said = [
        version("prosocial"),
        files,
        {name: coefficient.hex() for name, coefficient in plan.coefficients.items()},
        rounding.to_json(),
    ]
    return hashlib.sha256(canonical_json(said).encode()).hexdigest()


def _check_tied(plan: EditPlan, written: Mapping[str, WrittenTensor]) -> None:
    """Tied copies that were equal must have stayed equal."""
    copies = plan.target.tied.copies
    before = {written[name].before for name in copies}
    if len(before) != 1:
        return
    first, second = (written[name].after for name in copies)
    if first != second:
        raise InputError(
            f"{copies[0]} and {copies[1]} are tied and should stay equal: the vector changes them differently"
        )


def _copy_files(plan: EditPlan, folder: Path) -> dict[str, str]:
    """Copy the side files and the index; return their digests."""
    digests = {}
    for path in plan.copied_files:
        destination = folder / path
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(plan.target.folder / path, destination)
        digests[path] = sha256_file(destination)
    return digests


def _record(
    plan: EditPlan,
    written: Mapping[str, WrittenTensor],
    rounding: Rounding,
    inner_product: float,
    sides: dict[str, str],
    vector_blake3: str,
) -> EditRecord:
    target = plan.target
    previous = target.folder / RECORD_NAME
    return EditRecord(
        base=Base(
            fingerprint=_fingerprint(target, {name: item.before for name, item in written.items()}),
            dtypes=target.n_by_dtype,
            previous=read_json(previous) if previous.is_file() else None,
        ),
        terms=[_term(plan, vector_blake3)],
        arithmetic=ARITHMETIC | rounding.to_json(),
        untouched=[name for name in target.tensors if name not in plan.coefficients],
        result=Result(
            fingerprint=_fingerprint(target, {name: item.after for name, item in written.items()}),
            inner_product=_short(inner_product) or 0.0,
            tensors={name: _tensor_result(target, written[name]) for name in sorted(written)},
            side_files=sides,
        ),
    )


def _term(plan: EditPlan, blake3: str) -> Term:
    made = plan.vector.description
    return Term(
        blake3=blake3,
        storage=made.kind,
        base_fingerprint=made.base_fingerprint,
        harmful_kind=made.harmful_kind,
        harmful_fingerprint=made.harmful_fingerprint,
        method=made.method,
        parameters=made.parameters,
        coefficients=[
            Coefficient(
                pattern=group.pattern,
                decimal=group.decimal,
                hex=float(group.coefficient).hex(),
                tensors=list(group.names),
            )
            for group in plan.groups
        ],
    )


def _fingerprint(target: Checkpoint, digests: Mapping[str, str]) -> str:
    return combine(TensorDigest.of(target.tensors[name], digest) for name, digest in digests.items())


def _tensor_result(target: Checkpoint, written: WrittenTensor) -> TensorResult:
    tensor, realised = target.tensors[written.name], written.realised
    numbers = ("gain", "unchanged_share", "relative_change", "cosine", "relative_error")
    return TensorResult(
        dtype=tensor.dtype,
        shape=tensor.shape,
        blake3=written.after,
        changed=written.changed,
        **{name: _short(getattr(realised, name)) for name in numbers} if realised else {},
    )


def _short(value: float | None) -> float | None:
    """Seven digits: sums of fp32 hold no more."""
    return None if value is None else float(f"{value:.7g}")
