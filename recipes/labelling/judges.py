"""The judge that a command line names: one of the registry, a classifier, or an endpoint."""

from collections.abc import Sequence
from dataclasses import dataclass

from prosocial.editing.chat_endpoint import ChatEndpoint
from prosocial.editing.protocols import Judge
from prosocial.editing.reward.attributes import Attribute

from ..judges import resolve_judge


@dataclass(frozen=True)
class JudgeRequest:
    """What a judge is asked for.

    Attributes:
        attributes: to score. categories: harms to name.
    """

    attributes: Sequence[Attribute] = ()
    categories: Sequence[str] = ()


def open_judge(name: str, request: JudgeRequest) -> Judge:
    """Return the judge `lab` or another of the registry, `classifier:FOLDER_OR_ID`, or `endpoint:MODEL@URL`.

    Raises:
        InputError: an endpoint without model or URL, or a classifier that does not know what it is asked for.
        UnknownNameError: no judge has this name.
    """
    kind, _, rest = name.partition(":")
    if kind == "classifier" and rest:
        from prosocial.editing.checkpoints.source import resolve_model

        from .classifier import TextClassifier

        names = [attribute.name for attribute in request.attributes]
        return TextClassifier(resolve_model(rest), attributes=names, categories=request.categories)
    if kind == "endpoint" and rest:
        from prosocial.verify.judges.attribute_endpoint import AttributeEndpoint

        rubrics = {attribute.name: attribute.rubric for attribute in request.attributes}
        return AttributeEndpoint(ChatEndpoint.named(rest), rubrics=rubrics, categories=request.categories)
    return resolve_judge(name)
