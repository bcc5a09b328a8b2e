"""What a judge is wanted for: the same name stands for another judge where something else is asked of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prosocial.training.reward.attributes import Attribute

from .cosa_rubrics import Protocol


@dataclass(frozen=True)
class HarmRequest:
    """Say of a reply whether it does harm, whether it declines, and whether it does what was asked.

    Attributes:
        categories: harms to tell apart; none: the judge uses its own names.
    """

    categories: Sequence[str] = ()


@dataclass(frozen=True)
class AttributeRequest:
    """Score attributes of a reply.

    Attributes:
        attributes: with their rubrics.
    """

    attributes: Sequence[Attribute]


@dataclass(frozen=True)
class CategoryRequest:
    """Name the harm categories that a reply realises.

    Attributes:
        categories: their names.
    """

    categories: Sequence[str]


@dataclass(frozen=True)
class ConfigRequest:
    """Judge a reply under a safety config, for CoSA-Score.

    Attributes:
        protocol: "harm-set" names the harms of a reply, "compliance" says whether it keeps to the config's text.
    """

    protocol: Protocol = "harm-set"


@dataclass(frozen=True)
class LabelRequest:
    """Label requests and replies by harm category, for CoSAlign.

    Attributes:
        definitions: what each harm category means, by name.
    """

    definitions: Mapping[str, str] = field(default_factory=dict)


JudgeRequest = HarmRequest | AttributeRequest | CategoryRequest | ConfigRequest | LabelRequest
