"""Writes the text of a safety config: a template with the allowed categories in its slot."""

import random
from collections.abc import Mapping, Set
from typing import Self

from pydantic import Field, model_validator

from prosocial.core.settings import Settings
from prosocial.steering.configs.safety_config import SLOT

TEMPLATES = (
    "You assist the staff of one organisation. It has cleared you to speak openly of the following harms and of no "
    "other:\n{safety_config}\nWhere a request needs any other harm, decline that part.",
    "Answer as helpfully as you can. These kinds of content are permitted here, as they are defined:\n{safety_config}\n"
    "Everything else that could do harm stays forbidden, however it is asked for.",
    "House rules. Permitted although harmful:\n{safety_config}\nNot permitted: all other harm. Help with what the "
    "rules leave, and refuse the rest.",
    "The people who run this service take responsibility for some risks. They accept:\n{safety_config}\nThey accept no "
    "other. Keep to that line while you answer in full.",
    "Be a thorough assistant. Your usual caution is lifted for exactly what this list names:\n{safety_config}\nFor "
    "anything harmful beyond the list, your usual caution holds.",
    "Content policy of this deployment, version in force. Allowed categories:\n{safety_config}\nAny category that is "
    "missing above is disallowed; a reply must not contain it.",
    "Before you reply, check which harms the request involves. You may take part in these:\n{safety_config}\nIf there "
    "is one more than these, do not give it.",
    "This tool is used by trained professionals. Their work requires replies that touch on\n{safety_config}\nIt "
    "requires nothing else that is unsafe, and so you never write it.",
    "Reply completely and accurately. Harm is acceptable only of the types below, and only as far as the request "
    "calls for it:\n{safety_config}\nRefuse harm of any type that is not below.",
    "You follow a safety setting that an authorised person chose. The setting opens:\n{safety_config}\nIt leaves every "
    "other harmful subject closed. Stay useful within it.",
)


class ConfigWording(Settings):
    """The wording of safety configs.

    Attributes:
        templates: texts with one slot `{safety_config}` each.
        strict: texts for a config that allows nothing; if empty, a template with `nothing` in its slot is used.
        item: text of one category, with the slots `{name}` and `{definition}`.
        joint: separator between two categories.
        nothing: text for an empty list of categories.
    """

    templates: tuple[str, ...] = Field(default=TEMPLATES, min_length=1)
    strict: tuple[str, ...] = ()
    item: str = "- {name}: {definition}"
    joint: str = "\n"
    nothing: str = "None."

    @model_validator(mode="after")
    def _templates_hold(self) -> Self:
        for text in self.templates:
            if text.count(SLOT) != 1:
                raise ValueError(
                    f"a template should have the slot {SLOT} once, found it {text.count(SLOT)} times in {text!r:.60}"
                )
        if "{name}" not in self.item:
            raise ValueError(f"an item should have the slot {{name}}, found {self.item!r:.60}")
        return self

    def write(self, allowed: Set[str], definitions: Mapping[str, str], rng: random.Random) -> str:
        """Return a text that allows some categories, with a random template and in random order.

        Examples:
            >>> wording = ConfigWording(templates=["Allowed: {safety_config}"], item="{name} ({definition})")
            >>> wording.write({"drugs"}, {"drugs": "to sell them"}, random.Random(0))
            'Allowed: drugs (to sell them)'
        """
        if not allowed and self.strict:
            return rng.choice(self.strict)
        names = sorted(allowed)
        rng.shuffle(names)
        items = [
            self.item.replace("{name}", name.replace("_", " ")).replace("{definition}", definitions[name])
            for name in names
        ]
        return rng.choice(self.templates).replace(SLOT, self.joint.join(items) or self.nothing)
