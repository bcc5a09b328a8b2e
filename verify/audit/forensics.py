"""Level 3, without a record: recovers what explains each tensor from the elements of model, base and vectors."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from prosocial.editing.checkpoints.digests import stream_tensor
from prosocial.editing.checkpoints.header import TensorInfo
from prosocial.editing.checkpoints.numbers import STORED

from .audit_document import LevelAudit, TensorAudit, Weight
from .misfits import Misfits, describe_first
from .one_pass import recover_in_one_pass
from .pieces import PieceReader, open_pieces
from .recovery import LOOSEST, Recovery, recover
from .rules import RoundedOnce
from .vectors import GivenVector
from .verdicts import AuditVerdict, worst
from .weights import describe_weight

LEVEL: Final = 3
TITLE = "coefficients recovered from the weights, without a record"
SURE = 1e-4  # relative width above which the ends of an interval are shown


def examine_tensor(base: TensorInfo, model: TensorInfo, vectors: Sequence[GivenVector]) -> TensorAudit:
    """Find the weights and the arithmetic that explain a tensor.

    Args:
        base: the tensor in the base.
        model: the tensor in the model, of the same shape.
        vectors: the given vectors; those that do not change the tensor are ignored.
    """
    if model.dtype not in STORED or base.dtype not in STORED:
        return _compare_bytes(base, model)
    changing = [vector for vector in vectors if model.name in vector.folder.description.tensors]
    if not model.n_elements:
        return _tensor_audit(model, AuditVerdict.CONFIRMED, "it has no elements")
    if not changing and base.dtype == model.dtype:
        same = _compare_bytes(base, model)
        if same.verdict is AuditVerdict.CONFIRMED:
            return same
    with open_pieces(base, model, [vector.deltas for vector in changing]) as reader:
        recovery = recover_in_one_pass(reader)
        if recovery is None:
            broken = _not_finite(reader)
            if broken:
                return _tensor_audit(model, *broken)
            if not changing:
                return _outside(reader, model)
            recovery = recover(reader, delta_errors=[vector.error(model.name) for vector in changing])
    weights = [describe_weight(vector.name, bounds) for vector, bounds in zip(changing, recovery.bounds, strict=True)]
    return _judge(model, recovery, weights)


def conclude(tensors: Iterable[TensorAudit], other: Sequence[str]) -> tuple[LevelAudit, list[TensorAudit]]:
    """Return the result of the level, and the tensors, of which some verdicts may have become `cannot say`.

    Args:
        tensors: the audits of the examined tensors.
        other: further reasons to refute, such as a missing tensor.
    """
    listed = _doubt_loosest(list(tensors))
    refuted = [tensor for tensor in listed if tensor.verdict in (AuditVerdict.REFUTED, AuditVerdict.CANNOT_SAY)]
    reasons = [*other, *(f"{tensor.name}: {tensor.reason}" for tensor in refuted)]
    verdict = worst([tensor.verdict for tensor in listed] + [AuditVerdict.REFUTED for _ in other])
    if not reasons:
        n_explained = sum(tensor.verdict is AuditVerdict.WITHIN_ROUNDING for tensor in listed)
        reasons = [f"{n_explained} tensors explained, {len(listed) - n_explained} equal to the base"]
    return LevelAudit(level=LEVEL, title=TITLE, verdict=verdict, reasons=tuple(reasons)), listed


def _tensor_audit(tensor: TensorInfo, verdict: AuditVerdict, reason: str, **facts: Any) -> TensorAudit:
    return TensorAudit.of(tensor, LEVEL, verdict, reason, **facts)


def _judge(tensor: TensorInfo, recovery: Recovery, weights: list[Weight]) -> TensorAudit:
    known = tuple(weights) if all(weight.estimate is not None for weight in weights) else ()
    elements, n_misfits = recovery.misfits.elements(tensor.shape), recovery.misfits.n
    facts: dict[str, Any] = {"arithmetic": recovery.arithmetic, "weights": known}
    facts |= {"elements": elements, "n_misfits": n_misfits}
    if n_misfits:
        first = describe_first(elements, n_misfits, tensor)
        nearest = f", nearest {formula(known)}" if known else ""
        return _tensor_audit(tensor, AuditVerdict.REFUTED, f"no coefficient explains it{nearest}: {first}", **facts)
    added = [weight for weight in weights if weight.low is not None and weight.low > 0]
    if added:
        return _tensor_audit(
            tensor, AuditVerdict.REFUTED, f"harm is added, not subtracted: {formula(weights)}", **facts
        )
    unbounded = [weight for weight in weights if weight.estimate is None]
    if unbounded and len(weights) > 1:
        reason = f"explained, but the coefficient of {unbounded[0].vector} is not bounded given the other vectors"
        return _tensor_audit(tensor, AuditVerdict.CANNOT_SAY, reason, **facts)
    if unbounded:
        return _tensor_audit(
            tensor, AuditVerdict.WITHIN_ROUNDING, "equal to the base: the vector is too small to change it"
        )
    return _tensor_audit(tensor, AuditVerdict.WITHIN_ROUNDING, f"{formula(weights)}, {recovery.arithmetic}", **facts)


def _doubt_loosest(tensors: list[TensorAudit]) -> list[TensorAudit]:
    """Set tensors that need the loosest arithmetic to `cannot say` if most do not: its tolerance may hide a change."""
    kinds = [tensor.arithmetic for tensor in tensors if len(tensor.weights) > 1 and not tensor.n_misfits]
    if LOOSEST not in kinds or kinds.count(LOOSEST) > len(kinds) / 2:
        return tensors
    doubt = {"verdict": AuditVerdict.CANNOT_SAY, "reason": f"explained only if {LOOSEST}, unlike the other tensors"}
    odd = [tensor.arithmetic == LOOSEST and not tensor.n_misfits for tensor in tensors]
    return [tensor.model_copy(update=doubt) if each else tensor for tensor, each in zip(tensors, odd, strict=True)]


def formula(weights: Iterable[Weight]) -> str:
    """Return the model as a formula.

    >>> formula([Weight(vector="harm", low=-0.6, high=-0.6, estimate=-0.6)])
    'base - 0.6 * harm'
    """
    return " ".join(["base", *map(_term, weights)])


def _term(weight: Weight) -> str:
    if weight.low is None or weight.high is None or weight.estimate is None:
        return f"+ ? * {weight.vector}"
    sure = weight.high - weight.low <= SURE * max(1.0, abs(weight.estimate))
    subtracted = weight.estimate <= 0
    low, high = (-weight.high, -weight.low) if subtracted else (weight.low, weight.high)
    range_ = "" if sure else f" ({low:.3g} to {high:.3g})"
    return f"{'-' if subtracted else '+'} {abs(weight.estimate):.7g}{range_} * {weight.vector}"


def _outside(reader: PieceReader, tensor: TensorInfo) -> TensorAudit:
    """Compare a tensor that no vector changes with the base, element by element."""
    rule, misfits = RoundedOnce(tensor.dtype), Misfits()
    for piece in reader.pieces():
        expected = rule.predict(piece.base, np.zeros_like(piece.base), 0.0)
        wrong = np.flatnonzero(expected.view(np.uint32) != piece.model.view(np.uint32))
        misfits.add(piece.at, wrong, piece.base, piece.model, expected)
    if not misfits.n:
        return _tensor_audit(tensor, AuditVerdict.CONFIRMED, "equal to the base, rounded to another dtype")
    elements = misfits.elements(tensor.shape)
    reason = f"no vector changes it, but it differs from the base: {describe_first(elements, misfits.n, tensor)}"
    return _tensor_audit(tensor, AuditVerdict.REFUTED, reason, n_misfits=misfits.n, elements=elements)


def _not_finite(reader: PieceReader) -> tuple[AuditVerdict, str] | None:
    for piece in reader.pieces():
        base, model, deltas = piece.finite()
        if not model:
            return AuditVerdict.REFUTED, "it holds NaN or infinity"
        if not (base and deltas):
            return AuditVerdict.CANNOT_SAY, f"the {'vector' if base else 'base'} holds NaN or infinity"
    return None


def _compare_bytes(base: TensorInfo, model: TensorInfo) -> TensorAudit:
    pairs = zip(stream_tensor(base), stream_tensor(model), strict=False)
    if base.dtype == model.dtype and all(bytes(left) == bytes(right) for left, right in pairs):
        return _tensor_audit(model, AuditVerdict.CONFIRMED, "equal to the base")
    return _tensor_audit(
        model, AuditVerdict.REFUTED, f"it should equal the base's {base.dtype} tensor bit for bit, but it differs"
    )
