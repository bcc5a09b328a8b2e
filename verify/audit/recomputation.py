"""Level 2: the edit of a record done once more, element by element; every bit must come out again."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from prosocial.editing.checkpoints.digests import TensorDigest, combine, digest_tensor
from prosocial.editing.checkpoints.header import TensorInfo
from prosocial.editing.checkpoints.numbers import STORED, widen
from prosocial.editing.edits.piece import PieceEdit
from prosocial.editing.edits.record import EditRecord

from .audit_document import LevelAudit, TensorAudit
from .claim import Claim
from .intervals import TOLERANCES
from .misfits import Misfits, tell_first
from .pieces import PieceReader, open_pieces
from .polytope import Polytope
from .verdicts import AuditVerdict, worst

LEVEL: Final = 2
TITLE = "the record's edit, computed again"


def recompute_tensor(claim: Claim, base: TensorInfo, found: TensorInfo) -> tuple[TensorAudit, TensorDigest]:
    """Do the edit of one tensor again.

    Args:
        claim: of the record.
        base, found: the tensor in base and model, of one shape and dtype.

    Returns:
        What came of it, and the digest of the base's tensor.
    """
    coefficient = claim.coefficients.get(found.name)
    if coefficient is None or found.dtype not in STORED or not found.n_elements:
        return _untouched(base, found, claimed=coefficient is not None)
    digest, misfits = blake3(), Misfits()
    formula = f"base - {coefficient:.7g} * {claim.vector.name}"
    with open_pieces(base, found, [claim.vector.deltas]) as reader:
        piece = PieceEdit(found.dtype, rounding=claim.rounding)
        for at in reader.places:
            before, after = reader.stored(at)
            digest.update(before.data.cast("B"))
            expected, _ = piece.apply(before, reader.delta(at, len(before)), coefficient, key=found.name, at=at)
            wrong = _different(expected, after)
            if len(wrong):
                misfits.add(at, wrong, *map(_wide, (before, after, expected)))
        error = claim.vector.error(found.name) if misfits.n and not claim.rounding.stochastic else 0.0
        explained = bool(error) and _within(reader, coefficient, error)
    before_digest = TensorDigest.of(base, digest.hexdigest())
    if not misfits.n:
        return _found(found, AuditVerdict.CONFIRMED, f"{formula}, bit for bit"), before_digest
    if explained:
        reason = f"{formula}, but for the order of sums in the product of its factors"
        return _found(found, AuditVerdict.WITHIN_ROUNDING, reason), before_digest
    elements = misfits.elements(found.shape)
    reason = f"not {formula}: {tell_first(elements, misfits.n, found)}"
    return _found(found, AuditVerdict.REFUTED, reason, n_misfits=misfits.n, elements=elements), before_digest


def conclude(record: EditRecord, tensors: Sequence[TensorAudit], bases: Iterable[TensorDigest]) -> LevelAudit:
    """Return what all tensors say together.

    A base or a model that is not the record's own is told, because the record speaks of another one.
    """
    refuted = [f"{tensor.name}: {tensor.reason}" for tensor in tensors if tensor.verdict is AuditVerdict.REFUTED]
    own = combine(bases)
    if record.base.fingerprint not in (None, own):
        reason = f"the base given has fingerprint {own[:16]}, the record's {str(record.base.fingerprint)[:16]}"
        if record.base.previous is not None:
            reason += ": the record is of an edit of an edit; give the checkpoint between the two"
        return LevelAudit(level=LEVEL, title=TITLE, verdict=AuditVerdict.CANNOT_SAY, reasons=(reason, *refuted))
    verdict = worst(tensor.verdict for tensor in tensors)
    n_edited = sum(tensor.reason != "equal to the base" for tensor in tensors)
    reasons = refuted or [f"{n_edited} tensors come out again, {len(tensors) - n_edited} equal to the base"]
    return LevelAudit(level=LEVEL, title=TITLE, verdict=verdict, reasons=tuple(reasons))


def _found(tensor: TensorInfo, verdict: AuditVerdict, reason: str, **facts: Any) -> TensorAudit:
    return TensorAudit.of(tensor, LEVEL, verdict, reason, **facts)


def _untouched(base: TensorInfo, found: TensorInfo, *, claimed: bool) -> tuple[TensorAudit, TensorDigest]:
    before, after = digest_tensor(base), digest_tensor(found)
    if claimed and found.n_elements:
        return _found(found, AuditVerdict.REFUTED, f"the record edits a tensor of {found.dtype}"), before
    if before.blake3 == after.blake3:
        return _found(found, AuditVerdict.CONFIRMED, "equal to the base"), before
    return _found(found, AuditVerdict.REFUTED, "the record calls it untouched, and it is not the base's"), before


def _different(expected: NDArray[Any], after: NDArray[Any]) -> NDArray[np.intp]:
    bits = f"u{after.itemsize}"
    return np.flatnonzero(expected.view(bits) != after.view(bits))


def _wide(stored: NDArray[Any]) -> NDArray[np.float32]:
    wide = np.empty(len(stored), np.float32)
    widen(stored, wide)
    return wide


def _within(reader: PieceReader, coefficient: float, error: float) -> bool:
    """Whether other sums in the product of the factors explain every element that does not come out again."""
    solver = Polytope(TOLERANCES[0], reader.dtype, 1, np.array([error]))
    return not any(solver.misfits(piece, [-coefficient]).any() for piece in reader.pieces())
