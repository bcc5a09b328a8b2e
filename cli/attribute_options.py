"""Options that select attributes: the five built-in ones, or custom ones with their rubrics."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from prosocial.core.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from prosocial.training.reward.attributes import Attribute

AttributeNames = Annotated[
    str | None, typer.Option("--attributes", help="Names, separated by commas. [default: the five built-in ones]")
]
Rubrics = Annotated[
    list[str], typer.Option("--rubric", metavar="NAME=TEXT", help="What a high score means; may repeat.")
]


def chosen_attributes(
    names: str | None, rubrics: Sequence[str], *, betas: dict[str, float] | None = None
) -> "list[Attribute]":
    """Return the attributes that the options select, in order.

    Raises:
        UnknownNameError: a name is neither built-in nor has a rubric, or a rubric's name is not among the names.
        InputError: a rubric has no name or no text, or its name is repeated.
    """
    from prosocial.training.reward.attributes import DEFAULT_ATTRIBUTES, define_attributes, resolve_attributes

    chosen, given = split_names(names) or list(DEFAULT_ATTRIBUTES), _by_name(rubrics)
    _require_used(given, chosen)
    return resolve_attributes(chosen, betas=betas, known=define_attributes(given))


def scored_attributes(names: Sequence[str], rubrics: Sequence[str]) -> "list[Attribute]":
    """Return the attributes of a bundle for a judge; one that is neither built-in nor has a rubric gets an empty one.

    Raises:
        UnknownNameError: a rubric is for none of these attributes.
        InputError: a rubric has no name or no text, or its name is repeated.
    """
    from prosocial.training.reward.attributes import Attribute, define_attributes

    given = _by_name(rubrics)
    _require_used(given, names)
    known = define_attributes(given)
    return [known.get(name, Attribute(name, rubric="")) for name in names]


def split_names(text: str | None) -> list[str]:
    """Return the names in a comma-separated text.

    Examples:
        >>> split_names("empathy, helpfulness")
        ['empathy', 'helpfulness']
    """
    return [name.strip() for name in text.split(",")] if text else []


def _require_used(rubrics: Iterable[str], names: Sequence[str]) -> None:
    for name in rubrics:
        if name not in names:
            raise UnknownNameError("attribute of --rubric", name, names)


def _by_name(texts: Sequence[str]) -> dict[str, str]:
    rubric_by_name: dict[str, str] = {}
    for text in texts:
        name, equals, rubric = text.partition("=")
        if not (name and equals and rubric) or name in rubric_by_name:
            raise InputError(f"--rubric should be NAME=TEXT, each name once, found {text!r}")
        rubric_by_name[name] = rubric
    return rubric_by_name
