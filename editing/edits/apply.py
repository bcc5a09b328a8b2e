"""Writing an edited checkpoint: tensor by tensor on several threads, then read back and renamed (torch-free)."""

import hashlib
import math
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from prosocial.core.errors import InputError
from prosocial.core.files import canonical_json, read_json, sha256_file, write_json
from prosocial.core.resumable import left_over_bytes, resumable_folder

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

    Headers, tensor names, order and sharding stay byte for byte as in the target; so do unedited tensors and side
    files. The memory needed does not depend on the size of the model (products of low-rank factors are computed one
    tensor at a time), and the result does not depend on the number of threads. If the process is killed, the next call
    with the same plan resumes its work.

    Args:
        plan: a validated edit.
        out: path of the new folder.
        progress: called after each tensor with the bytes done and the total bytes.
        threads: number of worker threads; None for one per core.
        rounding: rounding mode: to nearest, or stochastic with a seed.
        verify: read the written tensors back and compare their digests.
        link: hard-link weight files without edited tensors instead of cloning or copying them.
        sync: flush all files to disk before the folder is renamed to `out`; without it a power cut can leave it broken.
        patch: path of a new patch file, which is enough to undo the edit without the base.

    Raises:
        InputError: `out` exists or another process is writing it; a result is NaN or infinite; tied copies would differ
            after the edit.
        StorageError: the disk is full, writing is not permitted, or the data read back differs from the data written.
    """
    out, patch = Path(out), None if patch is None else Path(patch)
    plan.check_destination(out)
    if patch is not None and patch.exists() and not left_over_bytes(out):  # a killed run may have written it
        raise InputError(f"{patch} should not exist yet: choose another name or delete it first")
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
    """Return a digest of everything that the output depends on; input files count by size and modification time."""
    weights = [plan.target.folder / name for name in (*plan.target.headers, *plan.copied_files)]
    stored = [plan.vector.folder / name for name in (DESCRIPTION_NAME, WEIGHTS_NAME)]
    files = {str(path.resolve()): (path.stat().st_size, path.stat().st_mtime_ns) for path in (*weights, *stored)}
    inputs = [
        version("prosocial"),
        files,
        {name: coefficient.hex() for name, coefficient in plan.coefficients.items()},
        rounding.to_json(),
    ]
    return hashlib.sha256(canonical_json(inputs).encode()).hexdigest()


def _check_tied(plan: EditPlan, written: Mapping[str, WrittenTensor]) -> None:
    """Check that tied copies that were equal before the edit are equal after it."""
    copies = plan.target.tied.copies
    before = {written[name].before for name in copies}
    if len(before) != 1:
        return
    first, second = (written[name].after for name in copies)
    if first != second:
        raise InputError(
            f"{copies[0]} and {copies[1]} are tied and should stay equal, the vector changes them differently: make "
            "the vector from parents with tied embeddings"
        )


def _copy_files(plan: EditPlan, folder: Path) -> dict[str, str]:
    """Copy the side files and the index; return their SHA-256 by path."""
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
    """Round to seven digits: sums of fp32 numbers are not more accurate."""
    return None if value is None else float(f"{value:.7g}")
