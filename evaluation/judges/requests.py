"""Requests to a judge: what it should report; the same name gives a different judge for each type of request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prosocial.training.reward.attributes import Attribute

from .cosa_rubrics import Protocol


@dataclass(frozen=True)
class HarmRequest:
    """Judge whether a reply does harm, whether it declines, and whether it fulfils the request.

    Attributes:
        categories: harm categories to distinguish; if empty, the judge uses its own.
    """

    categories: Sequence[str] = ()


@dataclass(frozen=True)
class AttributeRequest:
    """Score attributes of a reply.

    Attributes:
        attributes: the attributes and their rubrics.
    """

    attributes: Sequence[Attribute]


@dataclass(frozen=True)
class CategoryRequest:
    """Name the harm categories that a reply falls into.

    Attributes:
        categories: names of the harm categories.
    """

    categories: Sequence[str]


@dataclass(frozen=True)
class ConfigRequest:
    """Judge a reply under a safety config, for CoSA-Score.

    Attributes:
        protocol: "harm-set" names the harms in a reply, "compliance" checks whether it complies with the config's text.
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
