"""What an audit says of a claim, from best to worst."""

from collections.abc import Iterable
from enum import StrEnum


class AuditVerdict(StrEnum):
    """What is known of the claim `model = base - coefficient * vector`.

    Attributes:
        CONFIRMED: equal, bit for bit, to what was said.
        WITHIN_ROUNDING: some coefficient explains every element; nobody said which arithmetic was used.
        CANNOT_SAY: something is missing that would decide.
        REFUTED: an element, a tensor or a digest contradicts it.
    """

    CONFIRMED = "confirmed"
    WITHIN_ROUNDING = "confirmed within rounding"
    CANNOT_SAY = "cannot say"
    REFUTED = "refuted"


SEVERITY = tuple(AuditVerdict)


def worst(verdicts: Iterable[AuditVerdict]) -> AuditVerdict:
    """Return the most severe verdict; of none at all nothing can be said.

    >>> worst([AuditVerdict.CONFIRMED, AuditVerdict.WITHIN_ROUNDING]).value
    'confirmed within rounding'
    """
    return max(verdicts, key=SEVERITY.index, default=AuditVerdict.CANNOT_SAY)
