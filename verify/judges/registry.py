"""Judges by name, so that a command line can choose one; recipes add theirs."""

from collections.abc import Callable

from prosocial.editing.errors import InputError, UnknownNameError
from prosocial.editing.protocols import Judge

from .refusal import RefusalJudge

_FACTORIES: dict[str, Callable[[], Judge]] = {"refusal": lambda: RefusalJudge(assumed_harm="other")}


def register_judge(name: str, factory: Callable[[], Judge]) -> None:
    """Make a judge known under a name.

    Raises:
        InputError: the name is taken by another factory.
    """
    if _FACTORIES.get(name, factory) is not factory:
        raise InputError(f"the judge name {name!r} is taken: choose another")
    _FACTORIES[name] = factory


def judge_named(name: str) -> Judge:
    """Return a new judge.

    Args:
        name: a known name; `classifier:MODEL` or `classifier:MODEL=LABEL,LABEL` for a sequence classifier, with the
            labels that mean harm; `endpoint:MODEL@URL` for a model behind an OpenAI-compatible endpoint.

    Raises:
        UnknownNameError: no judge has this name; lists the known ones.
        InputError: what stands behind the colon is not as above.

    Example:
        >>> judge_named("refusal").judge([], "I cannot help with that.").refusal
        'full'
    """
    kind, colon, rest = name.partition(":")
    if colon and kind == "classifier":
        from .classifier import ClassifierJudge

        source, _, labels = rest.partition("=")
        return ClassifierJudge(source, harmful=labels.split(",") if labels else None)
    if colon and kind == "endpoint":
        from prosocial.editing.chat_endpoint import ChatEndpoint

        from .endpoint import EndpointJudge

        return EndpointJudge(ChatEndpoint.named(rest))
    if name not in _FACTORIES:
        raise UnknownNameError("judge", name, [*_FACTORIES, "classifier:MODEL", "endpoint:MODEL@URL"])
    return _FACTORIES[name]()


def judge_names() -> list[str]:
    """Return the known names, sorted."""
    return sorted(_FACTORIES)
