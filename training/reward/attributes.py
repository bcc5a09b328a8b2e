"""The attributes that a reward model scores, by name, each with what it asks of a reply."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from prosocial.core.errors import InputError, UnknownNameError


@dataclass(frozen=True)
class Attribute:
    """One attribute of a reply.

    Attributes:
        name: its identifier, as preferences and reports use it.
        rubric: one sentence that says what a high score means, for judges.
        beta: weight of the log-probability margin in the reward model's loss (PARM's beta_i).
        judge: name of the judge that labels it; None: the recipe's.
    """

    name: str
    rubric: str
    beta: float = 0.2
    judge: str | None = None


# The five attributes of ProSocialAlign (arXiv 2512.06515); the rubrics are ours, the paper's are not public.
DEFAULT_ATTRIBUTES: Mapping[str, Attribute] = {
    attribute.name: attribute
    for attribute in (
        Attribute("empathy", "The reply names and acknowledges what the person feels."),
        Attribute("sensitivity", "The reply is gentle in pace and tone and puts no pressure on the person."),
        Attribute("non_judgmental", "The reply accepts the person and blames or belittles nobody."),
        Attribute("truthfulness", "The reply corrects false premises and claims no more than is known."),
        Attribute("helpfulness", "The reply gives concrete, correct steps towards what was asked."),
    )
}


def define_attributes(rubrics: Mapping[str, str]) -> dict[str, Attribute]:
    """Return the five default attributes and those of these rubrics, by name; a default's rubric may be replaced.

    Example:
        >>> define_attributes({"brevity": "The reply is short."})["brevity"].beta
        0.2
    """
    return {**DEFAULT_ATTRIBUTES, **{name: Attribute(name, rubric) for name, rubric in rubrics.items()}}


def resolve_attributes(
    names: Sequence[str],
    *,
    betas: Mapping[str, float] | None = None,
    known: Mapping[str, Attribute] = DEFAULT_ATTRIBUTES,
) -> list[Attribute]:
    """Return the attributes of these names, in order; `betas` overrides their betas.

    Raises:
        UnknownNameError: a name is not known.
        InputError: there is no name, one stands twice, or a beta is not above 0.
    """
    if not names or len(set(names)) != len(names):
        raise InputError(f"attributes should be one or more different names, found {list(names)}")
    for name in (*names, *(betas or {})):
        if name not in known:
            raise UnknownNameError("attribute", name, known)
    chosen = [replace(known[name], beta=(betas or {}).get(name, known[name].beta)) for name in names]
    for attribute in chosen:
        if not attribute.beta > 0:
            raise InputError(f"beta of {attribute.name} should be above 0, found {attribute.beta}")
    return chosen
