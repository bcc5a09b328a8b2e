"""Opens judges by name; registers the lab's judges and the labellers beside those of `evaluation`."""

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
    """Return one judge that scores each attribute with the judge named for it.

    Args:
        names: name of the judge, by attribute.
        rubrics: what a high score means, by attribute.

    Raises:
        UnknownNameError: no judge has one of the names.
        InputError: a judge does not score its attribute.
    """
    judges = {
        judge: judge_named(
            judge, AttributeRequest([Attribute(one, rubrics[one]) for one in names if names[one] == judge])
        )
        for judge in sorted(set(names.values()))
    }
    return next(iter(judges.values())) if len(judges) == 1 else _Panel(names, judges)


def judge_inputs(names: Iterable[str]) -> dict[str, Outside]:
    """Return the files of custom judges as inputs of a stage, so that a changed file gives a new result."""
    files = {name: own_source(name) for name in names if is_own(name)}
    return {f"judge {name}": Outside(path) for name, path in files.items() if path is not None}


class _Panel:
    """Several judges, each for its own attributes; it returns no verdict on harm."""

    def __init__(self, by_attribute: Mapping[str, str], judges: Mapping[str, Judge]) -> None:
        self.name = "+".join(judge.name for judge in judges.values())
        self.version = "+".join(judge.version for judge in judges.values())
        self._by_attribute, self._judges = by_attribute, judges

    def judge(self, messages: Sequence[Message], reply: str) -> Judgement:
        """Score the attributes of one reply."""
        scores = {name: judge.judge(messages, reply).attributes for name, judge in self._judges.items()}
        pairs = self._by_attribute.items()
        return Judgement(attributes={name: scores[judge][name] for name, judge in pairs if name in scores[judge]})
