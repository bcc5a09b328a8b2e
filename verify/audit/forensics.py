"""Level 3, without a record: what explains each tensor, from its elements and those of base and vectors alone."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from prosocial.editing.checkpoints.digests import stream_tensor
from prosocial.editing.checkpoints.header import TensorInfo
from prosocial.editing.checkpoints.numbers import STORED

from .audit_document import LevelAudit, TensorAudit, Weight
from .misfits import Misfits, tell_first
from .one_pass import recover_in_one_pass
from .pieces import PieceReader, open_pieces
from .recovery import LOOSEST, Recovery, recover
from .rules import RoundedOnce
from .vectors import GivenVector
from .verdicts import AuditVerdict, worst
from .weights import describe_weight

LEVEL: Final = 3
TITLE = "coefficients recovered from the weights, without a record"
SURE = 1e-4  # a wider interval is told with its ends


def examine_tensor(base: TensorInfo, found: TensorInfo, vectors: Sequence[GivenVector]) -> TensorAudit:
    """Find what explains a tensor.

    Args:
        base, found: the tensor in base and model, of one shape.
        vectors: those given; the ones that do not change the tensor do not count.
    """
    if found.dtype not in STORED or base.dtype not in STORED:
        return _compare_bytes(base, found)
    changing = [vector for vector in vectors if found.name in vector.folder.description.tensors]
    if not found.n_elements:
        return _found(found, AuditVerdict.CONFIRMED, "no element")
    if not changing and base.dtype == found.dtype:
        same = _compare_bytes(base, found)
        if same.verdict is AuditVerdict.CONFIRMED:
            return same
    with open_pieces(base, found, [vector.deltas for vector in changing]) as reader:
        recovery = recover_in_one_pass(reader)
        if recovery is None:
            broken = _not_finite(reader)
            if broken:
                return _found(found, *broken)
            if not changing:
                return _outside(reader, found)
            recovery = recover(reader, delta_errors=[vector.error(found.name) for vector in changing])
    weights = [describe_weight(vector.name, bounds) for vector, bounds in zip(changing, recovery.bounds, strict=True)]
    return _judge(found, recovery, weights)


def conclude(tensors: Iterable[TensorAudit], other: Sequence[str]) -> tuple[LevelAudit, list[TensorAudit]]:
    """Return what all tensors say together, and the tensors with what is then to be doubted.

    Args:
        tensors: those that were examined.
        other: what is refuted besides, such as a missing tensor.
    """
    listed = _doubt_the_odd(list(tensors))
    refuted = [tensor for tensor in listed if tensor.verdict in (AuditVerdict.REFUTED, AuditVerdict.CANNOT_SAY)]
    reasons = [*other, *(f"{tensor.name}: {tensor.reason}" for tensor in refuted)]
    verdict = worst([tensor.verdict for tensor in listed] + [AuditVerdict.REFUTED for _ in other])
    if not reasons:
        n_explained = sum(tensor.verdict is AuditVerdict.WITHIN_ROUNDING for tensor in listed)
        reasons = [f"{n_explained} tensors explained, {len(listed) - n_explained} equal to the base"]
    return LevelAudit(level=LEVEL, title=TITLE, verdict=verdict, reasons=tuple(reasons)), listed


def _found(tensor: TensorInfo, verdict: AuditVerdict, reason: str, **facts: Any) -> TensorAudit:
    return TensorAudit.of(tensor, LEVEL, verdict, reason, **facts)


def _judge(found: TensorInfo, recovery: Recovery, weights: list[Weight]) -> TensorAudit:
    known = tuple(weights) if all(weight.estimate is not None for weight in weights) else ()
    elements, n_misfits = recovery.misfits.elements(found.shape), recovery.misfits.n
    facts: dict[str, Any] = {"arithmetic": recovery.arithmetic, "weights": known}
    facts |= {"elements": elements, "n_misfits": n_misfits}
    if n_misfits:
        told = tell_first(elements, n_misfits, found)
        nearest = f", nearest {formula(known)}" if known else ""
        return _found(found, AuditVerdict.REFUTED, f"no coefficient explains it{nearest}: {told}", **facts)
    added = [weight for weight in weights if weight.low is not None and weight.low > 0]
    if added:
        return _found(found, AuditVerdict.REFUTED, f"harm is added, not subtracted: {formula(weights)}", **facts)
    unbounded = [weight for weight in weights if weight.estimate is None]
    if unbounded and len(weights) > 1:
        reason = f"explained, but nothing bounds the coefficient of {unbounded[0].vector} beside the others"
        return _found(found, AuditVerdict.CANNOT_SAY, reason, **facts)
    if unbounded:
        return _found(found, AuditVerdict.WITHIN_ROUNDING, "equal to the base: the vector is too small to change it")
    return _found(found, AuditVerdict.WITHIN_ROUNDING, f"{formula(weights)}, {recovery.arithmetic}", **facts)


def _doubt_the_odd(tensors: list[TensorAudit]) -> list[TensorAudit]:
    """Where one sum explains most tensors, one that needs roundings at every step may hide a change."""
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
    range_ = "" if sure else f" ({weight.low:+.3g} to {weight.high:+.3g})"
    return f"{'-' if weight.estimate <= 0 else '+'} {abs(weight.estimate):.7g}{range_} * {weight.vector}"


def _outside(reader: PieceReader, found: TensorInfo) -> TensorAudit:
    """Hold a tensor that no vector changes against the base, element by element."""
    rule, misfits = RoundedOnce(found.dtype), Misfits()
    for piece in reader.pieces():
        expected = rule.predict(piece.base, np.zeros_like(piece.base), 0.0)
        wrong = np.flatnonzero(expected.view(np.uint32) != piece.found.view(np.uint32))
        misfits.add(piece.at, wrong, piece.base, piece.found, expected)
    if not misfits.n:
        return _found(found, AuditVerdict.CONFIRMED, "equal to the base, rounded to another dtype")
    elements = misfits.elements(found.shape)
    reason = f"no vector changes it, and it is not the base's: {tell_first(elements, misfits.n, found)}"
    return _found(found, AuditVerdict.REFUTED, reason, n_misfits=misfits.n, elements=elements)


def _not_finite(reader: PieceReader) -> tuple[AuditVerdict, str] | None:
    for piece in reader.pieces():
        base, found, deltas = piece.finite()
        if not found:
            return AuditVerdict.REFUTED, "it holds NaN or infinity"
        if not (base and deltas):
            return AuditVerdict.CANNOT_SAY, f"the {'vector' if base else 'base'} holds NaN or infinity"
    return None


def _compare_bytes(base: TensorInfo, found: TensorInfo) -> TensorAudit:
    pairs = zip(stream_tensor(base), stream_tensor(found), strict=False)
    if base.dtype == found.dtype and all(bytes(left) == bytes(right) for left, right in pairs):
        return _found(found, AuditVerdict.CONFIRMED, "equal to the base")
    return _found(found, AuditVerdict.REFUTED, f"it should be the base's {base.dtype}, bit for bit, and is not")
