"""The record that an edit leaves beside its weights, `edit_record.json` (torch-free); it holds no local path."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prosocial.core.errors import ArtefactError
from prosocial.core.files import read_json
from prosocial.core.settings import first_fault

from ..vectors.description import Tool

SCHEMA = "prosocial.edit_record/1"
RECORD_NAME = "edit_record.json"
LEAST_GAIN = 0.9


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Base(_Part):
    """The checkpoint that was edited.

    Attributes:
        fingerprint: of its weights.
        dtypes: number of tensors by dtype.
        previous: the record that it carried itself, if it was edited before.
    """

    fingerprint: str
    dtypes: dict[str, int]
    previous: dict[str, Any] | None = None


class Coefficient(_Part):
    """A coefficient and its tensors.

    Attributes:
        pattern: regular expression that chose the tensors, or the ramp and its layer; None otherwise.
        decimal: as given.
        hex: exact fp32 value that was used, in C99 notation.
        tensors: names, sorted.
    """

    pattern: str | None
    decimal: str
    hex: str
    tensors: list[str]


class Term(_Part):
    """A harm vector that was subtracted.

    Attributes:
        blake3: of the vector (`VectorFolder.blake3`).
        base_fingerprint, harmful_fingerprint: of the vector's parents.
        method, parameters: how the vector was made.
        coefficients: every tensor of the vector is in exactly one.
    """

    kind: Literal["vector"] = "vector"
    blake3: str
    storage: Literal["dense", "low_rank", "sparse"]
    base_fingerprint: str
    harmful_kind: Literal["checkpoint", "adapter", "mixed"]
    harmful_fingerprint: str
    method: str
    parameters: dict[str, float | str]
    coefficients: list[Coefficient]


class TensorResult(_Part):
    """An edited checkpoint's tensor.

    Attributes:
        blake3: of its raw bytes.
        changed: whether any byte differs from the base.
        gain: share of the asked change that was stored, along it; None for a copied tensor.
        unchanged_share: share of elements with a delta that rounding left as they were; None for a copied tensor.
        relative_change: norm of the change over the norm of the base's tensor; None for a copied tensor or a zero one.
        cosine: between the stored change and the asked one; None for a copied tensor.
        relative_error: norm of the stored change less the asked one, over the norm of the asked one; None likewise.
    """

    dtype: str
    shape: tuple[int, ...]
    blake3: str
    changed: bool
    gain: float | None = None
    unchanged_share: float | None = None
    relative_change: float | None = None
    cosine: float | None = None
    relative_error: float | None = None


class Result(_Part):
    """What the edit gave.

    Attributes:
        fingerprint: of the edited weights.
        inner_product: `<out - target, tau>` over all tensors, never above 0.
        tensors: every tensor by name.
        side_files: SHA-256 of the files copied as they were, by relative path.
    """

    fingerprint: str
    inner_product: float
    tensors: dict[str, TensorResult]
    side_files: dict[str, str]


class EditRecord(_Part):
    """What was subtracted from what, how, and what came out.

    Attributes:
        untouched: names of the tensors that are the base's, bit for bit, because nothing was subtracted from them.
    """

    schema_: Literal["prosocial.edit_record/1"] = Field(default="prosocial.edit_record/1", alias="schema")
    tool: Tool = Field(default_factory=Tool)
    base: Base
    terms: list[Term]
    arithmetic: dict[str, str | bool | int]
    untouched: list[str]
    result: Result

    @property
    def swallowed(self) -> list[str]:
        """Names of the tensors where rounding kept less than nine tenths of what was asked for."""
        gains = {name: tensor.gain for name, tensor in self.result.tensors.items()}
        return [name for name, gain in gains.items() if gain is not None and gain < LEAST_GAIN]

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return self.model_dump(mode="json", by_alias=True)


def read_record(folder: Path) -> EditRecord:
    """Read the record of an edited checkpoint.

    Raises:
        ArtefactError: there is none, or it does not follow the schema.
    """
    path = folder / RECORD_NAME
    value = read_json(path, schema=SCHEMA)
    try:
        return EditRecord.model_validate(value)
    except ValidationError as error:
        raise ArtefactError(f"{path} should follow {SCHEMA}: {first_fault(error)}") from None
