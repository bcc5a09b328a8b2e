"""Options that name attributes: the five known ones, or one's own with their rubrics."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from prosocial.core.errors import InputError

if TYPE_CHECKING:
    from prosocial.training.reward.attributes import Attribute

AttributeNames = Annotated[str | None, typer.Option("--attributes", help="Names, with commas. [default: the five]")]
Rubrics = Annotated[
    list[str], typer.Option("--rubric", metavar="NAME=TEXT", help="What a high score means (repeat it).")
]


def chosen_attributes(
    names: str | None, rubrics: Sequence[str], *, betas: dict[str, float] | None = None
) -> "list[Attribute]":
    """Return the attributes that the options name, in order.

    Raises:
        UnknownNameError: a name is neither known nor given a rubric. InputError: a rubric without a name or text.
    """
    from prosocial.training.reward.attributes import DEFAULT_ATTRIBUTES, define_attributes, resolve_attributes

    known = define_attributes(_by_name(rubrics))
    return resolve_attributes(split_names(names) or list(DEFAULT_ATTRIBUTES), betas=betas, known=known)


def scored_attributes(names: Sequence[str], rubrics: Sequence[str]) -> "list[Attribute]":
    """Return the attributes of a bundle, for a judge; one that is not known and given no rubric has none.

    Raises:
        InputError: a rubric without a name or text.
    """
    from prosocial.training.reward.attributes import Attribute, define_attributes

    known = define_attributes(_by_name(rubrics))
    return [known.get(name, Attribute(name, rubric="")) for name in names]


def split_names(text: str | None) -> list[str]:
    """Return the names in a text with commas."""
    return [name.strip() for name in text.split(",")] if text else []


def _by_name(texts: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, equals, rubric = text.partition("=")
        if not (name and equals and rubric) or name in found:
            raise InputError(f"--rubric should be NAME=TEXT, each name once, found {text!r}")
        found[name] = rubric
    return found
