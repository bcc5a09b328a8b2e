"""Judges by the name that a recipe or a command gives: verify's, with the lab's among them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prosocial.core.chat_endpoint import ChatEndpoint
from prosocial.core.protocols import Judge, Judgement, Message
from prosocial.evaluation.judges.own import own_source
from prosocial.evaluation.judges.registry import is_own, register_judge, register_opener
from prosocial.evaluation.judges.registry import judge_named as judge_named
from prosocial.evaluation.judges.requests import AttributeRequest, ConfigRequest, LabelRequest
from prosocial.training.reward.attributes import Attribute

from ..lab.config_judge import LabConfigJudge
from ..lab.judge import LabJudge
from ..workflow.stage import Outside


def _lab_labeller(_: str, request: LabelRequest) -> Any:
    from .labellers import LabLabeller

    return LabLabeller()


def _endpoint_labeller(rest: str, request: LabelRequest) -> Any:
    from .endpoint_labeller import EndpointLabeller

    return EndpointLabeller(ChatEndpoint.named(rest), request.definitions)


register_judge("lab", LabJudge)
register_opener("lab", ConfigRequest, lambda _, request: LabConfigJudge(request.protocol))
register_opener("lab", LabelRequest, _lab_labeller)
register_opener("endpoint", LabelRequest, _endpoint_labeller)


def attribute_judge(names: Mapping[str, str], rubrics: Mapping[str, str]) -> Judge:
    """Return one judge that scores each attribute by the judge of the name given for it.

    Args:
        names: of judges, and rubrics: what a high score means; both by attribute.

    Raises:
        UnknownNameError: no judge has such a name. InputError: one does not score an attribute.
    """
    judges = {
        judge: judge_named(
            judge, AttributeRequest([Attribute(one, rubrics[one]) for one in names if names[one] == judge])
        )
        for judge in sorted(set(names.values()))
    }
    return next(iter(judges.values())) if len(judges) == 1 else _Panel(names, judges)


def judge_inputs(names: Iterable[str]) -> dict[str, Outside]:
    """Return the files of the judges of the user's own, as inputs of a stage: another judge gives other results."""
    files = {name: own_source(name) for name in names if is_own(name)}
    return {f"judge {name}": Outside(path) for name, path in files.items() if path is not None}


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
