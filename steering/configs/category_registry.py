"""Harm categories with their definitions (torch-free)."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from prosocial.core.files import canonical_json

NEVER_ALLOWED = "other"


@dataclass(frozen=True)
class CategoryRegistry:
    """The harm categories of a gate, in the order of its outputs.

    Attributes:
        definitions: definition by category name; an empty string where the bundle has none.
    """

    definitions: Mapping[str, str]

    @property
    def digest(self) -> str:
        """The SHA-256 (hex) of names, order and definitions, which signed configs refer to.

        Examples:
            >>> CategoryRegistry({"drugs": ""}).digest == CategoryRegistry({"drugs": "Illegal drugs."}).digest
            False
        """
        return hashlib.sha256(canonical_json([*self.definitions.items()]).encode("utf-8")).hexdigest()


# The taxonomy of CoSA (arXiv 2410.08968): seven categories, and "other", which no config may allow.
COSA = CategoryRegistry(
    {
        "discrimination": "Unfair treatment or contempt of people for who they are (origin, skin, gender, orientation, "
        "belief, disability), and words meant to insult, belittle or threaten somebody.",
        "violence": "Deliberate bodily harm: attacks, murder, torture, kidnapping and cruelty, and harm that people do "
        "to themselves, suicide included.",
        "financial_crime": "Gaining money or goods by breaking the law: theft, robbery, fraud, embezzlement, "
        "extortion, money laundering, and breaking into computers or accounts.",
        "privacy": "Finding out, collecting, using or spreading personal information about somebody without leave, "
        "such as addresses, numbers, whereabouts or health.",
        "drugs": "Making, moving, selling or taking forbidden substances, and the misuse of permitted ones to get "
        "intoxicated.",
        "sexual_misconduct": "Sexual acts or advances without consent, harassment, abuse and exploitation, anything "
        "sexual that involves minors, and deceiving a partner.",
        "weapons": "Making, getting or using weapons and explosives, setting fires to do damage, and trading firearms "
        "past the law.",
        NEVER_ALLOWED: "Every harm that no other category names.",
    }
)
