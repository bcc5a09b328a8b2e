"""The record of a conversion, `conversion.json` in the checkpoint's folder; it holds no local path."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..vectors.description import Tool

RECORD_NAME = "conversion.json"
PLAIN = frozenset(("F32", "F16", "BF16", "F64"))


class Source(BaseModel):
    """The GGUF file.

    Attributes:
        name: its file name.
        sha256: hex SHA-256 of its bytes.
        size_bytes: its size.
        architecture: llama.cpp's name of the architecture.
        n_by_type: number of tensors of each type, such as `Q4_K`.
        general: what the file says about itself: name, licence, organisation, and so on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    sha256: str
    size_bytes: int
    architecture: str
    n_by_type: Mapping[str, int]
    general: Mapping[str, str]

    @property
    def quantised(self) -> list[str]:
        """Names of the quantised types."""
        return sorted(set(self.n_by_type) - PLAIN)


class ConversionRecord(BaseModel):
    """What a checkpoint was converted from, and how.

    Attributes:
        tool: name and version of the program.
        libraries: versions of the libraries that read the file.
        source: the GGUF file.
        dtype: dtype of the checkpoint.
        end_ids: ids of the tokens that end a reply.
        has_chat_template: whether the file has a chat template.
        unread: settings of the file that transformers' model of this architecture has no place for.
        fingerprint: fingerprint of the checkpoint's weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    schema_: Literal["prosocial.conversion/1"] = Field(default="prosocial.conversion/1", alias="schema")
    tool: Tool = Field(default_factory=Tool)
    libraries: Mapping[str, str]
    source: Source
    dtype: str
    end_ids: list[int]
    has_chat_template: bool
    unread: list[str]
    fingerprint: str

    @property
    def warnings(self) -> list[str]:
        """What a user of the checkpoint should know, in sentences."""
        source, found = self.source, []
        if source.quantised:
            found.append(
                f"{source.name} is quantised ({', '.join(source.quantised)}); its weights were dequantised to "
                f"{self.dtype}, so an edit of them is no edit of the original model"
            )
        if not self.has_chat_template:
            found.append(f"{source.name} has no chat template: put the model's chat_template.jinja into the folder")
        if not self.end_ids:
            found.append(f"{source.name} names no token that ends a reply: set eos_token_id in generation_config.json")
        if self.unread:
            found.append(f"settings of {source.name} that transformers has no place for: {', '.join(self.unread)}")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return self.model_dump(mode="json", by_alias=True)
