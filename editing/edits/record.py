"""The record of an edit, `edit_record.json` in the edited checkpoint's folder; it holds no local path (torch-free)."""

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
        fingerprint: fingerprint of its weights.
        dtypes: number of tensors by dtype.
        previous: record of an earlier edit, if this checkpoint was itself the result of one.
    """

    fingerprint: str
    dtypes: dict[str, int]
    previous: dict[str, Any] | None = None


class Coefficient(_Part):
    """A coefficient and the tensors that it applies to.

    Attributes:
        pattern: regular expression that selected the tensors, or ramp and layer; None otherwise.
        decimal: the coefficient in decimal digits, before rounding to fp32.
        hex: the exact fp32 value that was used, in C99 notation.
        tensors: names of the tensors, sorted.
    """

    pattern: str | None
    decimal: str
    hex: str
    tensors: list[str]


class Term(_Part):
    """A harm vector that was subtracted.

    Attributes:
        kind: always `vector`.
        blake3: digest of the vector (`VectorFolder.blake3`).
        storage: how the vector stores its deltas.
        base_fingerprint: fingerprint of the vector's base.
        harmful_kind: kind of the vector's harmful parents.
        harmful_fingerprint: fingerprint of the vector's harmful parents.
        method: method that shaped the vector.
        parameters: parameters of the method.
        coefficients: coefficients with their tensors; every tensor of the vector is in exactly one.
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
    """A tensor of the edited checkpoint; the measures of the change are None for a copied tensor (see `Realised`).

    Attributes:
        dtype: dtype of the tensor.
        shape: shape of the tensor.
        blake3: digest of its raw bytes.
        changed: whether any byte differs from the base.
        gain: projection of the stored change on the requested one, relative to its length.
        unchanged_share: share of the elements with a non-zero delta that rounding left unchanged.
        relative_change: norm of the change divided by the norm of the base's tensor; None if that is zero.
        cosine: cosine between the stored change and the requested one.
        relative_error: norm of the stored change minus the requested one, divided by the norm of the requested one.
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
    """The result of an edit.

    Attributes:
        fingerprint: fingerprint of the edited weights.
        inner_product: `<out - target, tau>` summed over all tensors, never above 0.
        tensors: every tensor by name.
        side_files: SHA-256 of the files that were copied unchanged, by relative path.
    """

    fingerprint: str
    inner_product: float
    tensors: dict[str, TensorResult]
    side_files: dict[str, str]


class EditRecord(_Part):
    """The base, the vectors that were subtracted, the arithmetic, and the result of an edit.

    Attributes:
        tool: name and version of the program.
        base: the checkpoint that was edited.
        terms: the harm vectors that were subtracted.
        arithmetic: how the result was computed and rounded.
        untouched: names of the tensors that were copied bit for bit from the base.
        result: the edited checkpoint.
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
        """Names of the tensors of which rounding kept less than nine tenths of the requested change."""
        gains = {name: tensor.gain for name, tensor in self.result.tensors.items()}
        return [name for name, gain in gains.items() if gain is not None and gain < LEAST_GAIN]

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return self.model_dump(mode="json", by_alias=True)


def read_record(folder: Path) -> EditRecord:
    """Read the record of an edited checkpoint.

    Raises:
        ArtefactError: there is no record, or it does not follow the schema.
    """
    path = folder / RECORD_NAME
    value = read_json(path, schema=SCHEMA)
    try:
        return EditRecord.model_validate(value)
    except ValidationError as error:
        raise ArtefactError(f"{path} should follow {SCHEMA}: {first_fault(error)}; restore the file") from None
