"""Level 2: recomputes the recorded edit element by element; every bit must be reproduced."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from prosocial.editing.checkpoints.digests import TensorDigest, combine, digest_tensor
from prosocial.editing.checkpoints.header import TensorInfo
from prosocial.editing.checkpoints.numbers import STORED, widen
from prosocial.editing.edits.piece import PieceEdit
from prosocial.editing.edits.realised import Realised
from prosocial.editing.edits.record import EditRecord

from .audit_document import LevelAudit, TensorAudit
from .claim import Claim
from .intervals import TOLERANCES
from .misfits import Misfits, describe_first
from .pieces import PieceReader, open_pieces
from .polytope import Polytope
from .verdicts import AuditVerdict, worst

LEVEL: Final = 2
TITLE = "the record's edit, computed again"


class Recomputed(NamedTuple):
    """A recomputed tensor.

    Attributes:
        audit: the audit of the tensor.
        base: digest of the base's tensor.
        realised: measures of the recomputed change; None for a tensor that the record does not edit.
    """

    audit: TensorAudit
    base: TensorDigest
    realised: Realised | None = None


def recompute_tensor(claim: Claim, base: TensorInfo, model: TensorInfo) -> Recomputed:
    """Recompute the edit of one tensor and compare it with the model.

    Args:
        claim: the record's claim.
        base: the tensor in the base.
        model: the tensor in the model, of the same shape and dtype.
    """
    coefficient = claim.coefficients.get(model.name)
    if coefficient is None or model.dtype not in STORED or not model.n_elements:
        return _untouched(base, model, claimed=coefficient is not None)
    digest, misfits, realised = blake3(), Misfits(), Realised(coefficient)
    formula = f"base - {coefficient:.7g} * {claim.vector.name}"
    with open_pieces(base, model, [claim.vector.deltas]) as reader:
        piece = PieceEdit(model.dtype, rounding=claim.rounding)
        for at in reader.places:
            before, after = reader.stored(at)
            digest.update(before.data.cast("B"))
            expected, sums = piece.apply(before, reader.delta(at, len(before)), coefficient, key=model.name, at=at)
            realised.add(sums)
            wrong = _different(expected, after)
            if len(wrong):
                misfits.add(at, wrong, *map(_wide, (before, after, expected)))
        error = claim.vector.error(model.name) if misfits.n and not claim.rounding.stochastic else 0.0
        explained = bool(error) and _within(reader, coefficient, error)
    before_digest = TensorDigest.of(base, digest.hexdigest())
    if not misfits.n:
        audit = _tensor_audit(model, AuditVerdict.CONFIRMED, f"{formula}, bit for bit")
        return Recomputed(audit, before_digest, realised)
    if explained:
        reason = f"{formula}, up to the summation order in the product of its factors"
        return Recomputed(_tensor_audit(model, AuditVerdict.WITHIN_ROUNDING, reason), before_digest, realised)
    elements = misfits.elements(model.shape)
    reason = f"not {formula}: {describe_first(elements, misfits.n, model)}"
    audit = _tensor_audit(model, AuditVerdict.REFUTED, reason, n_misfits=misfits.n, elements=elements)
    return Recomputed(audit, before_digest, realised)


def conclude(
    record: EditRecord, tensors: Sequence[TensorAudit], bases: Iterable[TensorDigest], other: Sequence[str] = ()
) -> LevelAudit:
    """Return the result of the level over all tensors.

    If the base is not the record's, the verdict is `cannot say`, because the record is about another base.

    Args:
        record: the record.
        tensors: the audits of the recomputed tensors.
        bases: digest of every tensor of the base.
        other: further reasons to refute: statements of the record that the recomputation contradicts.
    """
    refuted = [f"{tensor.name}: {tensor.reason}" for tensor in tensors if tensor.verdict is AuditVerdict.REFUTED]
    own = combine(bases)
    if record.base.fingerprint not in (None, own):
        reason = f"the given base has fingerprint {own[:16]}, the record's base {str(record.base.fingerprint)[:16]}"
        if record.base.previous is not None:
            reason += (
                ": the record is of a second edit of an edited checkpoint; give the checkpoint between the two edits"
            )
        return LevelAudit(level=LEVEL, title=TITLE, verdict=AuditVerdict.CANNOT_SAY, reasons=(reason, *refuted))
    refuted += other
    verdict = worst([*(tensor.verdict for tensor in tensors), *(AuditVerdict.REFUTED for _ in other)])
    n_edited = sum(tensor.reason != "equal to the base" for tensor in tensors)
    reasons = refuted or [f"{n_edited} tensors recomputed as recorded, {len(tensors) - n_edited} equal to the base"]
    return LevelAudit(level=LEVEL, title=TITLE, verdict=verdict, reasons=tuple(reasons))


def _tensor_audit(tensor: TensorInfo, verdict: AuditVerdict, reason: str, **facts: Any) -> TensorAudit:
    return TensorAudit.of(tensor, LEVEL, verdict, reason, **facts)


def _untouched(base: TensorInfo, model: TensorInfo, *, claimed: bool) -> Recomputed:
    before, after = digest_tensor(base), digest_tensor(model)
    verdict = AuditVerdict.REFUTED
    if claimed and model.n_elements:
        reason = f"the record edits a tensor of dtype {model.dtype}, which edits do not change"
    elif before.blake3 == after.blake3:
        verdict, reason = AuditVerdict.CONFIRMED, "equal to the base"
    else:
        reason = "the record lists it as untouched, but it differs from the base"
    return Recomputed(_tensor_audit(model, verdict, reason), before)


def _different(expected: NDArray[Any], after: NDArray[Any]) -> NDArray[np.intp]:
    bits = f"u{after.itemsize}"
    return np.flatnonzero(expected.view(bits) != after.view(bits))


def _wide(stored: NDArray[Any]) -> NDArray[np.float32]:
    wide = np.empty(len(stored), np.float32)
    widen(stored, wide)
    return wide


def _within(reader: PieceReader, coefficient: float, error: float) -> bool:
    """Whether another summation order in the product of the factors explains every element that differs."""
    solver = Polytope(TOLERANCES[0], reader.dtype, 1, np.array([error]))
    return not any(solver.misfits(piece, [-coefficient]).any() for piece in reader.pieces())
