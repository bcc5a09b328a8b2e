"""Judges by name, so that a command line or a recipe can select one; recipes register theirs here."""

from collections.abc import Callable, Iterable
from typing import Any, overload

from prosocial.core.chat_endpoint import ChatEndpoint
from prosocial.core.errors import InputError, UnknownNameError
from prosocial.core.protocols import Judge

from . import own
from .refusal import RefusalJudge
from .requests import AttributeRequest, CategoryRequest, ConfigRequest, HarmRequest, JudgeRequest, LabelRequest

Opener = Callable[[str, Any], Any]  # arguments: the text after the colon, and the request
HARM = HarmRequest()
FORMS = {"classifier": "classifier:MODEL[=LABEL,LABEL]", "endpoint": "endpoint:MODEL@URL"}

# What a registered judge can be needed for, and the words for it in a message.
PURPOSES: dict[type[JudgeRequest], str] = {
    HarmRequest: "of harm",
    AttributeRequest: "of attributes",
    CategoryRequest: "of harm categories",
    ConfigRequest: "of replies under safety configs",
}

_FACTORIES: dict[str, Callable[[], Judge]] = {"refusal": lambda: RefusalJudge(assumed_harm="other")}
_ANSWERS: dict[str, frozenset[type[JudgeRequest]]] = {"refusal": frozenset([HarmRequest])}
_OPENERS: dict[tuple[str, type[JudgeRequest]], Opener] = {}


def register_judge(
    name: str, factory: Callable[[], Judge], *, answers: Iterable[type[JudgeRequest]] = tuple(PURPOSES)
) -> None:
    """Register a judge under a name.

    Args:
        name: name for command lines and recipes.
        factory: makes the judge.
        answers: types of requests that the judge supports; `judge_named` refuses the others.

    Raises:
        InputError: the name is taken by another factory.
    """
    if name in FORMS or _FACTORIES.get(name, factory) is not factory:
        raise InputError(f"the judge name {name!r} is taken: choose another")
    _FACTORIES[name], _ANSWERS[name] = factory, frozenset(answers)


def register_opener(kind: str, request: type[JudgeRequest], opener: Opener) -> None:
    """Register the opener of a name, or of a prefix such as `endpoint:`, for one type of request."""
    _OPENERS[kind, request] = opener


@overload
def judge_named(name: str, request: LabelRequest) -> Any: ...
@overload
def judge_named(name: str, request: JudgeRequest = ...) -> Judge: ...
def judge_named(name: str, request: JudgeRequest = HARM) -> Any:
    """Return a new judge by name, for a type of request.

    Args:
        name: a registered name; `classifier:MODEL` or `classifier:MODEL=LABEL,LABEL` for a sequence classifier and its
            harmful labels; `endpoint:MODEL@URL` for a model behind an OpenAI-compatible endpoint; `module:Class` or
            `path/to/file.py:Class` for a class of your own, which is instantiated without arguments.
        request: what the judge is used for; with a `LabelRequest` the result is a labeller of requests and replies.

    Raises:
        UnknownNameError: no judge of this name supports the request; the message lists those that do.
        InputError: the text after the colon is invalid, or a class of your own lacks an attribute.

    Examples:
        >>> judge_named("refusal").judge([], "I cannot help with that.").refusal
        'full'
    """
    kind, colon, rest = name.partition(":")
    opener = _OPENERS.get((kind, type(request)))
    if opener is not None and bool(rest) == (kind in FORMS):
        return opener(rest, request)
    if colon and rest and kind not in FORMS:
        return own.own_judge(name, methods=("request_harms", "reply_label") if _is_label(request) else ("judge",))
    if type(request) not in _ANSWERS.get(name, ()):
        purpose = f" {PURPOSES[type(request)]}" if name in _FACTORIES and type(request) in PURPOSES else ""
        raise UnknownNameError(f"judge{purpose}", name, _known(request))
    return _FACTORIES[name]()


def judge_names() -> list[str]:
    """Return the registered names, sorted."""
    return sorted(_FACTORIES)


def is_own(name: str) -> bool:
    """Return whether a name refers to a user-defined class."""
    return ":" in name and name.partition(":")[0] not in FORMS


def _is_label(request: JudgeRequest) -> bool:
    return isinstance(request, LabelRequest)


def _known(request: JudgeRequest) -> list[str]:
    kinds = {kind for kind, wanted in _OPENERS if wanted is type(request)}
    names = kinds | {name for name, answers in _ANSWERS.items() if type(request) in answers}
    return [*(FORMS.get(name, name) for name in names), *own.FORMS]


def _harm_classifier(rest: str, request: HarmRequest) -> Judge:
    from .classifier import ClassifierJudge

    source, _, labels = rest.partition("=")
    return ClassifierJudge(source, harmful=labels.split(",") if labels else None, categories=request.categories)


def _attribute_classifier(rest: str, request: AttributeRequest) -> Judge:
    return _text_classifier(rest, attributes=[attribute.name for attribute in request.attributes])


def _category_classifier(rest: str, request: CategoryRequest) -> Judge:
    return _text_classifier(rest, categories=request.categories)


def _text_classifier(rest: str, **names: Any) -> Judge:
    from .text_classifier import TextClassifier

    return TextClassifier(rest.partition("=")[0], **names)


def _harm_endpoint(rest: str, request: HarmRequest) -> Judge:
    from .endpoint import EndpointJudge
    from .rubric import strong_reject

    return EndpointJudge(ChatEndpoint.named(rest), rubric=strong_reject(request.categories))


def _attribute_endpoint(rest: str, request: AttributeRequest) -> Judge:
    from .attribute_endpoint import AttributeEndpoint

    rubrics = {attribute.name: attribute.rubric for attribute in request.attributes}
    return AttributeEndpoint(ChatEndpoint.named(rest), rubrics=rubrics)


def _category_endpoint(rest: str, request: CategoryRequest) -> Judge:
    from .attribute_endpoint import AttributeEndpoint

    return AttributeEndpoint(ChatEndpoint.named(rest), categories=request.categories)


def _config_endpoint(rest: str, request: ConfigRequest) -> Judge:
    from .cosa_rubrics import compliance_rubric, harm_set_rubric
    from .endpoint import EndpointJudge

    rubric = harm_set_rubric() if request.protocol == "harm-set" else compliance_rubric()
    return EndpointJudge(ChatEndpoint.named(rest), rubric=rubric)


register_opener("classifier", HarmRequest, _harm_classifier)
register_opener("classifier", AttributeRequest, _attribute_classifier)
register_opener("classifier", CategoryRequest, _category_classifier)
register_opener("endpoint", HarmRequest, _harm_endpoint)
register_opener("endpoint", AttributeRequest, _attribute_endpoint)
register_opener("endpoint", CategoryRequest, _category_endpoint)
register_opener("endpoint", ConfigRequest, _config_endpoint)
