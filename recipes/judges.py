"""Judges by the name that a recipe or a command gives: verify's, and the lab's."""

from collections.abc import Mapping, Sequence

from prosocial.editing.chat_endpoint import ChatEndpoint
from prosocial.editing.protocols import Judge, Judgement, Message
from prosocial.verify.cosa_score.rubrics import Protocol, compliance_rubric, harm_set_rubric
from prosocial.verify.judges import judge_named, register_judge
from prosocial.verify.judges.endpoint import EndpointJudge

from .lab.config_judge import LabConfigJudge
from .lab.judge import LabJudge

register_judge("lab", LabJudge)


def resolve_judge(name: str) -> Judge:
    """Return the judge of this name.

    `refusal` cannot see harm: every reply that does not decline counts as `other`, an upper bound on harmful probes.

    Raises:
        UnknownNameError: no judge has this name.
    """
    return judge_named(name)


def resolve_config_judge(name: str, protocol: Protocol) -> Judge:
    """Return the judge of CoSA-Score of this name: `lab`, `endpoint:MODEL@URL`, or any that scores helpfulness.

    Raises:
        UnknownNameError: no judge has this name.
    """
    if name == "lab":
        return LabConfigJudge(protocol)
    kind, _, rest = name.partition(":")
    if kind != "endpoint":
        return resolve_judge(name)
    rubric = harm_set_rubric() if protocol == "harm-set" else compliance_rubric()
    return EndpointJudge(ChatEndpoint.named(rest), rubric=rubric)


def resolve_judges(by_attribute: Mapping[str, str]) -> Judge:
    """Return one judge that scores each attribute by the judge of the name given for it.

    Raises:
        UnknownNameError: no judge has such a name.
    """
    names = sorted(set(by_attribute.values()))
    judges = {name: resolve_judge(name) for name in names}
    return judges[names[0]] if len(names) == 1 else _Panel(by_attribute, judges)


class _Panel:
    """Several judges, each for its attributes; it says nothing of harm."""

    def __init__(self, by_attribute: Mapping[str, str], judges: Mapping[str, Judge]) -> None:
        self.name = "+".join(judge.name for judge in judges.values())
        self.version = "+".join(judge.version for judge in judges.values())
        self._by_attribute, self._judges = by_attribute, judges

    def judge(self, messages: Sequence[Message], reply: str) -> Judgement:
        """Judge one reply."""
        found = {name: judge.judge(messages, reply).attributes for name, judge in self._judges.items()}
        wanted = self._by_attribute.items()
        return Judgement(attributes={name: found[judge][name] for name, judge in wanted if name in found[judge]})
