"""Judges by the name that a recipe or a command gives: verify's, and the lab's."""

from prosocial.editing.protocols import Judge
from prosocial.verify.judges import judge_named, register_judge

from .lab.judge import LabJudge

register_judge("lab", LabJudge)


def resolve_judge(name: str) -> Judge:
    """Return the judge of this name.

    `refusal` cannot see harm: every reply that does not decline counts as `other`, an upper bound on harmful probes.

    Raises:
        UnknownNameError: no judge has this name.
    """
    return judge_named(name)
