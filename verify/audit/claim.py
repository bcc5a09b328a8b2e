"""The claim of an edit record, checked for contradictions before anything is recomputed."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from prosocial.core.errors import InputError
from prosocial.editing.checkpoints.folder import Checkpoint
from prosocial.editing.edits.arithmetic import ARITHMETIC
from prosocial.editing.edits.plan import redundant_copies
from prosocial.editing.edits.record import Coefficient, EditRecord, Term
from prosocial.editing.edits.rounding import NEAREST, Rounding

from .stated import against_vector
from .vectors import GivenVector
from .verdicts import AuditVerdict


class NoClaim(Exception):  # noqa: N818 - a verdict, not an error
    """The record contradicts itself, or its claim cannot be recomputed."""

    def __init__(self, verdict: AuditVerdict, reason: str) -> None:
        super().__init__(reason)
        self.verdict, self.reason = verdict, reason


@dataclass(frozen=True)
class Claim:
    """A claim that can be recomputed: model = base - coefficient * vector, tensor by tensor.

    Attributes:
        vector: the vector that the record names.
        coefficients: coefficient by tensor, above 0 and exact in fp32; all other tensors equal the base's.
        rounding: how results are rounded to the tensor's dtype.
    """

    vector: GivenVector
    coefficients: dict[str, float]
    rounding: Rounding


def read_claim(record: EditRecord, names: Collection[str], vectors: Sequence[GivenVector], base: Checkpoint) -> Claim:
    """Return the claim of a record.

    Args:
        record: the record.
        names: names of the model's tensors, as the base stores them.
        vectors: the given vectors.
        base: the given base.

    Raises:
        NoClaim: the record contradicts itself or adds harm (refuted), or the vector is not given or the arithmetic is
            unknown (cannot say).
    """
    if len(record.terms) != 1:
        raise NoClaim(
            AuditVerdict.CANNOT_SAY,
            f"the record names {len(record.terms)} vectors; only an edit by one can be recomputed",
        )
    (term,) = record.terms
    coefficients = {name: value for group in term.coefficients for name, value in _group(group).items()}
    _check_names(record, term, coefficients, names)
    if not record.result.inner_product <= 0:
        raise NoClaim(AuditVerdict.REFUTED, f"<edit, vector> should be at most 0, found {record.result.inner_product}")
    rounding = _rounding(record)
    vector = _find(term, vectors)
    wrong = list(against_vector(term, vector.folder.description))
    if wrong:
        raise NoClaim(AuditVerdict.REFUTED, "; ".join(wrong))
    if {*vector.folder.names} - redundant_copies(base, vector.folder) != {*coefficients}:
        raise NoClaim(
            AuditVerdict.REFUTED,
            f"the record gives coefficients to other tensors than those that {vector.name} changes",
        )
    return Claim(vector, {name: value for name, value in coefficients.items() if value > 0}, rounding)


def _group(group: Coefficient) -> dict[str, float]:
    """Return the coefficient of each tensor, checked to be finite, at least 0 and equal to its decimal form."""
    try:
        value, stated = float.fromhex(group.hex), float(group.decimal)
    except (ValueError, OverflowError):
        reason = f"a coefficient should be a number, found {group.hex!r} ({group.decimal!r})"
        raise NoClaim(AuditVerdict.REFUTED, reason) from None
    if not (math.isfinite(value) and value >= 0):
        raise NoClaim(AuditVerdict.REFUTED, f"a coefficient should be finite and at least 0, found {value}")
    with np.errstate(over="ignore"):
        if float(np.float32(value)) != value or float(np.float32(stated)) != value:
            raise NoClaim(
                AuditVerdict.REFUTED,
                f"the record states the coefficient {group.decimal}, but its hexadecimal form is {value:.9g}",
            )
    return dict.fromkeys(group.tensors, value)


def _check_names(record: EditRecord, term: Term, coefficients: dict[str, float], names: Collection[str]) -> None:
    n_named = sum(len(group.tensors) for group in term.coefficients)
    if n_named != len(coefficients):
        raise NoClaim(AuditVerdict.REFUTED, "the record gives a tensor two coefficients")
    absent = sorted(name for name in coefficients if name not in names)
    if absent:
        raise NoClaim(AuditVerdict.REFUTED, f"the record changes {absent[0]}, which is not in the model")
    untouched = {name for name in names if not coefficients.get(name)}
    wrong = sorted(untouched ^ {*record.untouched})
    if wrong:
        raise NoClaim(
            AuditVerdict.REFUTED,
            f"the tensors without a coefficient should be those listed as untouched: {wrong[0]} is not",
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
            AuditVerdict.CANNOT_SAY, f"the record names an arithmetic unknown to this version: {', '.join(other)}"
        )
    return rounding


def _find(term: Term, vectors: Sequence[GivenVector]) -> GivenVector:
    """Return the vector that a term names."""
    if not vectors:
        raise NoClaim(AuditVerdict.CANNOT_SAY, "the record's vector was not given: give it with --vector")
    for vector in vectors:
        if vector.folder.blake3() == term.blake3:
            return vector
    raise NoClaim(
        AuditVerdict.CANNOT_SAY, f"none of the given vectors is the record's, BLAKE3 {term.blake3[:16]}: give that one"
    )
