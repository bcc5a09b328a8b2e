"""Judges by the name that a recipe or a command gives: verify's, and the lab's."""

from prosocial.editing.errors import UnknownNameError
from prosocial.editing.protocols import Judge
from prosocial.verify.judges import RefusalJudge

from .lab.judge import LabJudge


def resolve_judge(name: str) -> Judge:
    """Return the judge of this name.

    `refusal` cannot see harm: every reply that does not decline counts as `other`, an upper bound on harmful probes.

    Raises:
        UnknownNameError: no judge has this name.
    """
    judges: dict[str, Judge] = {"lab": LabJudge(), "refusal": RefusalJudge(assumed_harm="other")}
    if name not in judges:
        raise UnknownNameError("judge", name, judges)
    return judges[name]
