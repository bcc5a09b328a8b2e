"""The audit of a checkpoint: runs every level that its inputs allow, on several threads, and takes the worst verdict.

Level 1 compares digests and needs the model with its edit record, plus a trusted key to check a signature. Level 2
recomputes the edit and also needs base and vector. Level 3 recovers coefficients from the weights without a record.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from prosocial.core.cores import usable_cores
from prosocial.core.errors import InputError
from prosocial.core.signing.keys import TrustedKey
from prosocial.editing.checkpoints.alignment import Alignment, align
from prosocial.editing.checkpoints.digests import TensorDigest, combine, digest_tensor
from prosocial.editing.checkpoints.folder import Checkpoint
from prosocial.editing.checkpoints.header import TensorInfo
from prosocial.editing.edits.record import RECORD_NAME, EditRecord, read_record

from . import forensics, integrity, recomputation
from .audit_document import AuditReport, LevelAudit, SideDifference, TensorAudit
from .claim import Claim, NoClaim, read_claim
from .side_files import compare_side_files
from .stated import against_base, against_measures, unverified
from .vectors import GivenVector, open_vectors
from .verdicts import AuditVerdict, worst
from .weights import common_weights

Progress = Callable[[int, int], None]  # bytes of tensors done, bytes in all
Result = TypeVar("Result")


def audit_model(
    model: Path | str,
    *,
    base: Path | str | None = None,
    vectors: Sequence[Path | str] = (),
    keys: Sequence[TrustedKey] = (),
    ignore_record: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> AuditReport:
    """Check the claim that a checkpoint is its base minus harm vectors.

    Weights are read in pieces, so memory does not depend on the size of the model (the product of low-rank factors is
    computed one tensor at a time). No torch is needed.

    Args:
        model: the checkpoint, with or without its edit record.
        base: the checkpoint that the model was edited from; without it, only digests are checked.
        vectors: folders of harm vectors, at most four.
        keys: trusted public keys; if any are given, the model's signature must be by one of them.
        ignore_record: recover the coefficients from the weights even if there is a record.
        threads: number of worker threads; None for one per core.
        progress: called after each tensor with the bytes done and the bytes in all.

    Raises:
        InputError: vectors are given without a base, there are more than four, or they do not fit the base's tensors.
        ArtefactError: a folder is not a checkpoint or a vector, or a record is invalid.
    """
    if vectors and base is None:
        raise InputError("vectors should be given with the base that they were subtracted from: give --base")
    model, base = Path(model), None if base is None else Path(base)
    checkpoint = Checkpoint.open(model)
    parent = None if base is None else Checkpoint.open(base)
    given = [] if parent is None else open_vectors([Path(vector) for vector in vectors], parent)
    recorded = (model / RECORD_NAME).is_file() and not ignore_record
    record = read_record(model) if recorded else None
    work = _Work(checkpoint, threads, progress, n_passes=1 + int(parent is not None))
    levels: list[LevelAudit] = [integrity.check_signer(model, keys)] if keys else []
    tensors: list[TensorAudit] = []
    digests = work.over(checkpoint.tensors, lambda name: digest_tensor(checkpoint.tensors[name]), n_before=0)
    own_fingerprint = combine(digests.values())
    if record is not None:
        digests |= _tied_copies(checkpoint, record, digests)
        levels.append(integrity.check_digests(checkpoint, record, digests))
    if parent is not None:
        level, tensors = _recompute(work, record, parent, given, digests) if record else _examine(work, parent, given)
        levels.append(level)
    sides = None if parent is None else compare_side_files(parent, checkpoint)
    return AuditReport(
        model=model.name,
        fingerprint=own_fingerprint,
        base=base.name if base else None,
        vectors=tuple(vector.name for vector in given),
        verdict=worst([level.verdict for level in levels] + _side_verdict(sides)),
        levels=tuple(levels),
        weights=common_weights(tensor.weights for tensor in tensors if not tensor.n_misfits),
        tensors=tuple(sorted(tensors, key=lambda tensor: tensor.name)),
        side_files=sides,
        unverified=tuple(unverified(record, checkpoint, recomputed=_confirms(levels)) if record else ()),
    )


@dataclass(frozen=True)
class _Work:
    """Runs a function over the tensors of a model on several threads, the largest first, and reports progress."""

    checkpoint: Checkpoint
    threads: int | None
    progress: Progress | None
    n_passes: int

    def over(self, names: Iterable[str], look: Callable[[str], Result], *, n_before: int = 1) -> dict[str, Result]:
        """Return the result of `look` by tensor name; `n_before` earlier passes count as done in the progress."""
        size = self.checkpoint.size_bytes
        sizes = {name: tensor.size_bytes for name, tensor in self.checkpoint.tensors.items()}
        ordered = sorted(names, key=lambda name: -sizes.get(name, 0))
        results, done = {}, n_before * size
        pool = ThreadPoolExecutor(self.threads or usable_cores(), thread_name_prefix="audit")
        try:
            futures = {pool.submit(look, name): name for name in ordered}
            for future in as_completed(futures):
                name = futures[future]
                results[name] = future.result()
                done += sizes.get(name, 0)
                if self.progress:
                    self.progress(done, self.n_passes * size)
        finally:
            pool.shutdown(cancel_futures=True)
        return results


def _recompute(
    work: _Work,
    record: EditRecord,
    base: Checkpoint,
    vectors: Sequence[GivenVector],
    digests: Mapping[str, TensorDigest],
) -> tuple[LevelAudit, list[TensorAudit]]:
    """Run level 2."""
    aligned = align(base, work.checkpoint)
    pairs, wrong = _pair(aligned, same_dtype=True)
    names = {*aligned.second, *(aligned.dropped & {*base.tensors})}
    try:
        claim: Claim = read_claim(record, names, vectors, base)
    except NoClaim as none:
        return _level_2(none.verdict, [none.reason, *wrong]), []
    audited = work.over(pairs, lambda name: recomputation.recompute_tensor(claim, *pairs[name]))
    tensors = [each.audit for each in audited.values()]
    if wrong:
        reasons = [*wrong, *(f"{each.name}: {each.reason}" for each in tensors if each.verdict is AuditVerdict.REFUTED)]
        return _level_2(AuditVerdict.REFUTED, reasons), tensors
    realised = {name: each.realised for name, each in audited.items() if each.realised}
    bases = {name: each.base for name, each in audited.items()}
    before = {name: each.blake3 for name, each in bases.items()}
    bases |= {name: digest_tensor(tensor) for name, tensor in base.tensors.items() if name not in bases}
    other = [*against_base(record.base, base), *against_measures(record, realised, before, digests)]
    return recomputation.conclude(record, tensors, bases.values(), other), tensors


def _confirms(levels: Sequence[LevelAudit]) -> bool:
    """Whether the last level recomputed the record's edit and found it so."""
    last = levels[-1]
    return last.level == recomputation.LEVEL and last.verdict in (AuditVerdict.CONFIRMED, AuditVerdict.WITHIN_ROUNDING)


def _level_2(verdict: AuditVerdict, reasons: list[str]) -> LevelAudit:
    return LevelAudit(level=2, title=recomputation.TITLE, verdict=verdict, reasons=tuple(reasons))


def _examine(work: _Work, base: Checkpoint, vectors: Sequence[GivenVector]) -> tuple[LevelAudit, list[TensorAudit]]:
    """Run level 3."""
    pairs, wrong = _pair(align(base, work.checkpoint), same_dtype=False)
    look = partial(_examine_pair, pairs, vectors)
    tensors = list(work.over(pairs, look).values())
    return forensics.conclude(sorted(tensors, key=lambda tensor: tensor.name), wrong)


def _examine_pair(
    pairs: dict[str, tuple[TensorInfo, TensorInfo]], vectors: Sequence[GivenVector], name: str
) -> TensorAudit:
    return forensics.examine_tensor(*pairs[name], vectors)


def _tied_copies(
    checkpoint: Checkpoint, record: EditRecord, digests: Mapping[str, TensorDigest]
) -> dict[str, TensorDigest]:
    """Return the digest of a tied copy that the record lists and the model stores under the other name only."""
    absent = checkpoint.tied.absent
    names = [name for name in record.result.tensors if name not in digests and absent and name.endswith(absent)]
    return {name: replace(digests[stored], name=name) for name in names for stored in checkpoint.tied.stored[:1]}


def _pair(aligned: Alignment, *, same_dtype: bool) -> tuple[dict[str, tuple[TensorInfo, TensorInfo]], list[str]]:
    """Return the tensors that both have in the same shape, and a description of each that does not match."""
    wrong, pairs = [], {}
    for name in sorted({*aligned.first, *aligned.second}):
        left, right = aligned.first.get(name), aligned.second.get(name)
        if left is None or right is None:
            wrong.append(f"{name}: only in the {'base' if left else 'model'}")
        elif left.shape != right.shape or (same_dtype and left.dtype != right.dtype):
            wrong.append(f"{name}: {left.dtype} {left.shape} in the base, {right.dtype} {right.shape} in the model")
        else:
            pairs[name] = (left, right)
    return pairs, wrong


def _side_verdict(sides: Sequence[SideDifference] | None) -> list[AuditVerdict]:
    """Return `cannot say` if side files differ: the claim is about the weights, but the model's output may differ."""
    return [AuditVerdict.CANNOT_SAY] if sides else []
