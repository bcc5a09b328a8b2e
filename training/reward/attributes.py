"""The attributes of replies that a reward model scores, by name, with their rubrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from prosocial.core.errors import InputError, UnknownNameError


@dataclass(frozen=True)
class Attribute:
    """One attribute of a reply.

    Attributes:
        name: identifier in preferences and reports.
        rubric: one sentence that tells judges what a high score means.
        beta: weight of the log-probability margin in the reward model's loss (PARM's beta_i); above 0.
        judge: name of the judge that labels the attribute; None for the recipe's.
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
    """Return the five default attributes plus those with these rubrics, by name; a rubric may replace a default's.

    Examples:
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
    """Return the attributes with these names, in order.

    Args:
        names: names of the attributes.
        betas: beta by name, replacing the attribute's own.
        known: all attributes by name.

    Raises:
        UnknownNameError: a name is not in `known`.
        InputError: there is no name, a name appears twice, or a beta is not above 0.

    Examples:
        >>> [attribute.beta for attribute in resolve_attributes(["empathy", "helpfulness"], betas={"empathy": 1.0})]
        [1.0, 0.2]
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
