"""Verdicts of an audit, from best to worst."""

from collections.abc import Iterable
from enum import StrEnum


class AuditVerdict(StrEnum):
    """The verdict on the claim `model = base - coefficient * vector`.

    Attributes:
        CONFIRMED: the model equals the claim bit for bit.
        WITHIN_ROUNDING: a coefficient explains every element within rounding; the arithmetic is not recorded.
        CANNOT_SAY: information needed for a verdict is missing.
        REFUTED: an element, a tensor or a digest contradicts the claim.
    """

    CONFIRMED = "confirmed"
    WITHIN_ROUNDING = "confirmed within rounding"
    CANNOT_SAY = "cannot say"
    REFUTED = "refuted"


SEVERITY = tuple(AuditVerdict)


def worst(verdicts: Iterable[AuditVerdict]) -> AuditVerdict:
    """Return the most severe verdict; `cannot say` if there are none.

    >>> worst([AuditVerdict.CONFIRMED, AuditVerdict.WITHIN_ROUNDING]).value
    'confirmed within rounding'
    """
    return max(verdicts, key=SEVERITY.index, default=AuditVerdict.CANNOT_SAY)
