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

    Raises:
        UnknownNameError: no judge has this name; lists the known ones.

    Example:
        >>> judge_named("refusal").judge([], "I cannot help with that.").refusal
        'full'
    """
    if name not in _FACTORIES:
        raise UnknownNameError("judge", name, _FACTORIES)
    return _FACTORIES[name]()


def judge_names() -> list[str]:
    """Return the known names, sorted."""
    return sorted(_FACTORIES)
