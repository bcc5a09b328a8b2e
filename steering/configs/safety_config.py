"""A safety config: text for the system prompt, and settings of the gate and the head (torch-free)."""

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
    """A safety config: a text that instructs the model, and settings that the graph enforces.

    Source: CoSA (arXiv 2410.08968), which has the text only.

    Attributes:
        text: instructions for the system message; may be empty in a bundle's own configs.
        allowed: harm categories that the gate allows.
        threshold: highest risk in [0, 1] at which a token is safe; None for the decoding config's default.
        preference: weight by attribute; None for the decoding config's default.
        fallback: the reply when no safe continuation exists; None for the decoding config's.
        system_prompt: template of the system message; must contain the slot `{safety_config}` once, which `text`
            replaces.
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
            raise ValueError(f"a system prompt should hold the slot {SLOT} once, found it {template.count(SLOT)} times")
        return template

    @property
    def system_message(self) -> str:
        """The system message; empty if there is no text.

        Examples:
            >>> SafetyConfig(text="Fights are fine.", system_prompt="Rules: {safety_config}").system_message
            'Rules: Fights are fine.'
        """
        return self.system_prompt.replace(SLOT, self.text) if self.text else ""


class NamedConfig(SafetyConfig):
    """A safety config in its own file, with a name and a text.

    Attributes:
        name: name in logs and reports; lower-case letters, digits, `_`, `.` and `-`.
        text: instructions for the system message; not empty.
    """

    schema_: Literal["prosocial.safety_config/1"] = Field(default="prosocial.safety_config/1", alias="schema")
    name: Name
    text: str

    @field_validator("text")
    @classmethod
    def _says_something(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("a safety config should have a text: describe what it allows and forbids")
        return text

    @property
    def is_text_only(self) -> bool:
        """Whether the config has no mask yet: `allowed` was never set."""
        return "allowed" not in self.model_fields_set

    @property
    def digest(self) -> str:
        """The SHA-256 (hex) of all fields."""
        return hashlib.sha256(canonical_json(self.model_dump(by_alias=True)).encode("utf-8")).hexdigest()

    def write(self, path: Path | str) -> None:
        """Write the config as an unsigned JSON file."""
        write_json(Path(path), self.model_dump(by_alias=True))

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read an unsigned JSON file, to show, check or sign it; only a signed config may be applied.

        Raises:
            ArtefactError: the file is missing, its schema differs, or a value is invalid (the message names it).
        """
        return cls.parse(read_json(Path(path), schema=SCHEMA), source=str(path))

    @classmethod
    def parse(cls, value: dict[str, Any], *, source: str) -> Self:
        """Validate plain data; `source` names it in errors.

        Raises:
            ArtefactError: a value is invalid (the message names it).
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise ArtefactError(f"{source} should be a safety config; {first_fault(error)}") from None
