"""What an edit record claims, checked in itself before anything is computed from it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prosocial.core.errors import InputError
from prosocial.editing.checkpoints.folder import Checkpoint
from prosocial.editing.edits.arithmetic import ARITHMETIC
from prosocial.editing.edits.record import Coefficient, EditRecord, Term
from prosocial.editing.edits.rounding import NEAREST, Rounding

from .vectors import GivenVector
from .verdicts import AuditVerdict


class NoClaim(Exception):  # noqa: N818 - a verdict, not an error
    """The record claims nothing that could be recomputed, or contradicts itself."""

    def __init__(self, verdict: AuditVerdict, reason: str) -> None:
        super().__init__(reason)
        self.verdict, self.reason = verdict, reason


@dataclass(frozen=True)
class Claim:
    """A claim that can be recomputed: model = base - coefficient * vector, tensor by tensor.

    Attributes:
        vector: the one that the record names.
        coefficients: by tensor, above 0, numbers of fp32; all other tensors are the base's.
        rounding: of the results.
    """

    vector: GivenVector
    coefficients: dict[str, float]
    rounding: Rounding


def read_claim(record: EditRecord, checkpoint: Checkpoint, vectors: Sequence[GivenVector]) -> Claim:
    """Return what a record claims.

    Raises:
        NoClaim: refuted, because it contradicts itself or adds harm; or cannot say, because the vector is not given or
            the arithmetic is not known.
    """
    if len(record.terms) != 1:
        raise NoClaim(AuditVerdict.CANNOT_SAY, f"the record names {len(record.terms)} vectors, one can be recomputed")
    (term,) = record.terms
    coefficients = {name: value for group in term.coefficients for name, value in _group(group).items()}
    _check_names(record, term, coefficients, checkpoint)
    if not record.result.inner_product <= 0:
        raise NoClaim(AuditVerdict.REFUTED, f"<edit, vector> should be at most 0, found {record.result.inner_product}")
    rounding = _rounding(record)
    vector = _find(term, vectors)
    if {*vector.folder.names} != {*coefficients}:
        raise NoClaim(
            AuditVerdict.REFUTED, f"the record gives coefficients to other tensors than {vector.name} changes"
        )
    return Claim(vector, {name: value for name, value in coefficients.items() if value > 0}, rounding)


def _group(group: Coefficient) -> dict[str, float]:
    """Return the coefficient of each tensor: finite, at least 0, and the number that was said."""
    try:
        value, said = float.fromhex(group.hex), float(group.decimal)
    except (ValueError, OverflowError):
        raise NoClaim(AuditVerdict.REFUTED, f"no number: coefficient {group.hex!r} ({group.decimal!r})") from None
    if not (math.isfinite(value) and value >= 0):
        raise NoClaim(AuditVerdict.REFUTED, f"a coefficient should be finite and at least 0, found {value}")
    with np.errstate(over="ignore"):
        if float(np.float32(value)) != value or float(np.float32(said)) != value:
            raise NoClaim(AuditVerdict.REFUTED, f"the record says {group.decimal}, and uses {value:.9g}")
    return dict.fromkeys(group.tensors, value)


def _check_names(record: EditRecord, term: Term, coefficients: dict[str, float], checkpoint: Checkpoint) -> None:
    n_named = sum(len(group.tensors) for group in term.coefficients)
    if n_named != len(coefficients):
        raise NoClaim(AuditVerdict.REFUTED, "the record gives a tensor two coefficients")
    absent = sorted(name for name in coefficients if name not in checkpoint.tensors)
    if absent:
        raise NoClaim(AuditVerdict.REFUTED, f"the record changes {absent[0]}, which the model does not hold")
    untouched = {name for name in checkpoint.tensors if not coefficients.get(name)}
    wrong = sorted(untouched ^ {*record.untouched})
    if wrong:
        raise NoClaim(
            AuditVerdict.REFUTED, f"the record should call untouched what has no coefficient: {wrong[0]} differs"
        )


def _rounding(record: EditRecord) -> Rounding:
    seed = record.arithmetic.get("rounding_seed")
    try:
        rounding = Rounding("stochastic", int(seed)) if seed is not None else NEAREST
    except (InputError, ValueError):
        rounding = NEAREST
    expected = ARITHMETIC | rounding.to_json()
    other = sorted(key for key in {*expected, *record.arithmetic} if expected.get(key) != record.arithmetic.get(key))
    if other:
        raise NoClaim(
            AuditVerdict.CANNOT_SAY, f"the record names an arithmetic that is not known here: {', '.join(other)}"
        )
    return rounding


def _find(term: Term, vectors: Sequence[GivenVector]) -> GivenVector:
    """Return the vector that a term names."""
    if not vectors:
        raise NoClaim(AuditVerdict.CANNOT_SAY, "the record's vector is not given: give it with --vector")
    for vector in vectors:
        if vector.folder.blake3() == term.blake3:
            return vector
    raise NoClaim(AuditVerdict.CANNOT_SAY, f"none of the given vectors is the record's (BLAKE3 {term.blake3[:16]})")
