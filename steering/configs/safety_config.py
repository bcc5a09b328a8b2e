"""A safety config: text for the system prompt, and what the gate and the head do with it (torch-free)."""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, field_validator

from prosocial.core.errors import ArtefactError
from prosocial.core.files import canonical_json, read_json, write_json
from prosocial.core.settings import StrictSettings, first_fault

SCHEMA = "prosocial.safety_config/1"
SLOT = "{safety_config}"
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=64)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class SafetyConfig(StrictSettings):
    """A safety config (CoSA, arXiv 2410.08968): the text asks the model, the rest binds the graph.

    Attributes:
        text: what the model is told; may be empty in a bundle's own configs.
        allowed: harm categories that the gate lets through.
        threshold: the risk in [0, 1] up to which a token is safe; None: the default of the decoding config.
        preference: weights by attribute; None: the default of the decoding config.
        fallback: the reply where no safe continuation was found; None: that of the decoding config.
        system_prompt: template of the system message; the text takes the place of its one slot.
    """

    text: str = ""
    allowed: list[str] = Field(default_factory=list)
    threshold: Share | None = None
    preference: dict[str, float] | None = None
    fallback: Annotated[str, Field(min_length=1)] | None = None
    system_prompt: str = SLOT

    @field_validator("system_prompt")
    @classmethod
    def _has_one_slot(cls, template: str) -> str:
        if template.count(SLOT) != 1:
            raise ValueError(f"a template should hold the slot {SLOT} once, found it {template.count(SLOT)} times")
        return template

    @property
    def system_message(self) -> str:
        """The system message; empty where there is no text.

        Example:
            >>> SafetyConfig(text="Fights may be told.", system_prompt="Rules: {safety_config}").system_message
            'Rules: Fights may be told.'
        """
        return self.system_prompt.replace(SLOT, self.text) if self.text else ""


class NamedConfig(SafetyConfig):
    """A safety config as a file of its own: named, and with a text.

    Attributes:
        name: what logs and reports call it. text: never empty.
    """

    schema_: Literal["prosocial.safety_config/1"] = Field(default="prosocial.safety_config/1", alias="schema")
    name: Name
    text: str

    @field_validator("text")
    @classmethod
    def _says_something(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("a safety config should say in its text what it is for, found none")
        return text

    @property
    def is_text_only(self) -> bool:
        """Whether nobody has decided yet which categories the text allows."""
        return "allowed" not in self.model_fields_set

    @property
    def digest(self) -> str:
        """The hex SHA-256 of all that it says."""
        return hashlib.sha256(canonical_json(self.model_dump(by_alias=True)).encode("utf-8")).hexdigest()

    def write(self, path: Path | str) -> None:
        """Write it as a file that nobody has signed."""
        write_json(Path(path), self.model_dump(by_alias=True))

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read a file that nobody has signed: to show, check or sign it, never to obey it.

        Raises:
            ArtefactError: the file is missing, of another schema, or a value does not hold (names it).
        """
        return cls.parse(read_json(Path(path), schema=SCHEMA), source=str(path))

    @classmethod
    def parse(cls, value: dict[str, Any], *, source: str) -> Self:
        """Validate plain data; `source` is what the error calls it.

        Raises:
            ArtefactError: a value does not hold (names it).
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise ArtefactError(f"{source} should be a safety config; {first_fault(error)}") from None
