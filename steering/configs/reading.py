"""Which harm categories a safety config's text allows: a proposed mask, and contradictions with one (torch-free).

The reading by keywords only helps authors. Only the mask that somebody approved and signed is enforced.
"""

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from .category_registry import NEVER_ALLOWED, CategoryRegistry
from .safety_config import NamedConfig, SafetyConfig

# Word stems that indicate a category of CoSA; any other category is recognised by its name only.
TERMS = {
    "discrimination": ("discriminat", "racis", "sexis", "insult", "slur", "hate", "prejudice", "verbal abuse"),
    "violence": ("violen", "fight", "murder", "kill", "tortur", "kidnap", "suicid", "self-harm", "injur", "gore"),
    "financial_crime": (
        "financial crime",
        "fraud",
        "theft",
        "steal",
        "robber",
        "embezzl",
        "launder",
        "hacking",
        "scam",
    ),
    "privacy": ("privacy", "personal data", "personal information", "doxx", "home address"),
    "drugs": ("drug", "narcotic", "substance abuse", "intoxicat"),
    "sexual_misconduct": ("sexual", "sex ", "harass", "infidel", "seduc"),
    "weapons": ("weapon", "gun", "firearm", "explosive", "bomb", "arson"),
    NEVER_ALLOWED: ("other harm", "every harm", "all harm", "any harm", "all kinds of harm"),
}
FORBIDS = re.compile(
    r"\b(?:never|no|not|nor|none|without|avoid\w*|forb[ia]d\w*|prohibit\w*|refus\w*|declin\w*|disallow\w*|except\w*"
    r"|exclud\w*|unsafe|\w+n't)\b"
)
PERMITS = re.compile(
    r"\b(?:may|can|allow\w*|permit\w*|okay|ok|fine|welcome|acceptable|authori[sz]ed|relax\w*|discuss\w*|describ\w*"
    r"|portray\w*|depict\w*)\b"
)
CLAUSE = re.compile(
    r"[.;!?\n]+|,?\s+\b(?:but|however|although|while|whereas|yet)\b|,\s+(?=(?:and\s+)?(?:never|no|not)\b)"
)


@dataclass(frozen=True)
class Reading:
    """The harm categories that a text allows and forbids.

    Attributes:
        allows: names of the allowed categories.
        forbids: names of the forbidden categories; a category that the text does not mention is in neither set.
    """

    allows: frozenset[str] = frozenset()
    forbids: frozenset[str] = frozenset()


Reader = Callable[[str, CategoryRegistry], Reading]
Topics = Callable[[str], Collection[str]]  # maps a clause to the categories that it mentions


def read_by_words(text: str, registry: CategoryRegistry) -> Reading:
    """Read a text by keywords: each clause permits or forbids the categories that it mentions.

    Examples:
        >>> from prosocial.steering.configs import COSA
        >>> reading = read_by_words("Fights may be described, but never how to make a bomb.", COSA)
        >>> sorted(reading.allows), sorted(reading.forbids)
        (['violence'], ['weapons'])
    """
    return read_by_clauses(text, lambda clause: [name for name in registry.definitions if _names(clause, name)])


def read_by_clauses(text: str, topics: Topics) -> Reading:
    """Read a text clause by clause, with `topics` returning the categories that a clause mentions.

    Keywords decide whether a clause permits or forbids. A category that one clause permits and another forbids counts
    as forbidden.
    """
    allows: set[str] = set()
    forbids: set[str] = set()
    for clause in filter(str.strip, CLAUSE.split(text.lower())):
        named = set(topics(clause.strip()))
        if FORBIDS.search(clause):
            forbids |= named
        elif PERMITS.search(clause):
            allows |= named
    return Reading(frozenset(allows - forbids), frozenset(forbids))


def with_mask(config: NamedConfig, reading: Reading, *, may_allow: Iterable[str]) -> NamedConfig:
    """Return the config with a mask that allows the categories its text allows, limited to `may_allow`.

    Args:
        config: the config.
        reading: the result of reading its text.
        may_allow: categories that the bundle's ceiling permits.
    """
    allowed = sorted(reading.allows & set(may_allow) - {NEVER_ALLOWED})
    return NamedConfig.model_validate(config.model_dump(by_alias=True) | {"allowed": allowed})


def contradictions(config: SafetyConfig, reading: Reading) -> list[str]:
    """Return one line per category where the text and the mask of a config differ.

    Examples:
        >>> config = SafetyConfig(text="No fights.", allowed=["violence"])
        >>> contradictions(config, Reading(forbids=frozenset({"violence"})))
        ['violence: the text forbids it, the mask allows it']
    """
    allowed = set(config.allowed)
    forbidden = [f"{name}: the text forbids it, the mask allows it" for name in sorted(reading.forbids & allowed)]
    shut = [f"{name}: the text allows it, the mask does not" for name in sorted(reading.allows - allowed)]
    unsaid = sorted(allowed - reading.allows - reading.forbids)
    return [*forbidden, *shut, *(f"{name}: the text does not mention it, the mask allows it" for name in unsaid)]


def _names(clause: str, category: str) -> bool:
    terms = (*TERMS.get(category, ()), category.replace("_", " "))
    return any(re.search(rf"\b{re.escape(term)}", clause) for term in terms)
