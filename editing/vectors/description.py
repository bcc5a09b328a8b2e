"""The description of a harm vector, `vector.json` (torch-free)."""

import hashlib
import math
import statistics
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from prosocial.core.errors import ArtefactError
from prosocial.core.files import read_json
from prosocial.core.settings import first_fault

SCHEMA = "prosocial.vector/1"
DESCRIPTION_NAME = "vector.json"
WEIGHTS_NAME = "vector.safetensors"
Storage = Literal["dense", "low_rank", "sparse"]
ParentKind = Literal["checkpoint", "adapter"]


class Tool(BaseModel):
    """The program that made an artefact.

    Attributes:
        name: name of the program.
        version: version of the program.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = "prosocial"
    version: str = Field(default_factory=lambda: version("prosocial"))


class TensorSummary(BaseModel):
    """Summary of the vector's delta for one tensor.

    Attributes:
        shape: shape of the tensor, in the base as in any target.
        storage: how the delta is stored: as a dense tensor, as two factors and a scale, or as indices and values of the
            non-zero elements.
        norm: Euclidean norm of the delta.
        ratio: norm of the delta divided by the norm of the base's tensor; None if that is zero.
        relatedness: cosine between the base's and the harmful parent's tensor, the lowest of several parents; None if
            one of the two is zero.
        alignment: cosine between the delta after and before shaping, never below 0; None in vectors of old versions.
        n_zeros: number of elements that are exactly zero.
        n_not_finite: number of NaN and infinite elements; always 0, because such vectors are rejected.
        harmful_blake3: digest of each harmful parent's tensor, in the order of the parents; None for an adapter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    shape: tuple[int, ...]
    storage: Storage
    norm: float
    ratio: float | None
    relatedness: float | None
    alignment: float | None = None
    n_zeros: int
    n_not_finite: int = 0
    harmful_blake3: tuple[str | None, ...] = ()

    @field_validator("harmful_blake3", mode="before")
    @classmethod
    def _of_one_parent(cls, value: object) -> object:
        """Convert the form of old versions: a single digest or null."""
        return (value,) if value is None or isinstance(value, str) else value


class Relatedness(BaseModel):
    """Smallest and median cosine between the tensors of base and harmful parent, including unchanged tensors.

    Attributes:
        minimum: smallest cosine; None if there is none.
        median: median cosine; None if there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    minimum: float | None
    median: float | None

    @classmethod
    def of(cls, cosines: Iterable[float | None]) -> "Relatedness":
        """Return the summary of cosines; None entries are ignored.

        >>> Relatedness.of([1.0, None, 0.5]).median
        0.75
        """
        known = [cosine for cosine in cosines if cosine is not None]
        return cls(minimum=min(known, default=None), median=statistics.median(known) if known else None)

    @classmethod
    def lowest(cls, parts: Iterable["Relatedness"]) -> "Relatedness":
        """Return the lowest minimum and the lowest median of several parents."""
        known = list(parts)
        minima = [part.minimum for part in known if part.minimum is not None]
        medians = [part.median for part in known if part.median is not None]
        return cls(minimum=min(minima, default=None), median=min(medians, default=None))


class HarmfulParent(BaseModel):
    """A harmful model that the vector was made from.

    Attributes:
        kind: checkpoint or adapter.
        fingerprint: fingerprint of the checkpoint, or SHA-256 of the adapter file.
        relatedness: cosines between its tensors and the base's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: ParentKind
    fingerprint: str
    relatedness: Relatedness


class Step(BaseModel):
    """A saved vector that this one was made from.

    Attributes:
        blake3: digest of the saved vector (`VectorFolder.blake3`).
        method: method that shaped the saved vector.
        parameters: parameters of that method.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    blake3: str
    method: str
    parameters: dict[str, float | str]


class VectorDescription(BaseModel):
    """How a harm vector was made, and what it contains (`vector.json`).

    Attributes:
        schema_: version of the format, `schema` in the file.
        kind: `low_rank` if any tensor is stored as factors, else `sparse` if any is stored sparsely, else `dense`.
        tool: the program that made the vector.
        base_fingerprint: fingerprint of the base checkpoint.
        harmful_kind: whether the harmful parents are checkpoints, adapters or both.
        harmful_fingerprint: fingerprint of the harmful checkpoint, or SHA-256 of the adapter file, or a digest over
            those of several parents.
        harmful_parents: all harmful parents; empty in vectors of old versions, which have one parent.
        shaped_from: the saved vectors that this one was made from, directly or indirectly.
        method: method that shaped the difference.
        parameters: parameters of the method.
        relatedness: cosines between base and harmful parents, the lowest values of several parents.
        tensors: summary of each changed tensor by name, sorted by name.
        left_out: names of the tensors that the vector does not change.
        notes: rows and tensors that only one parent has and that the vector leaves as they are, in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    schema_: Literal["prosocial.vector/1"] = Field(default="prosocial.vector/1", alias="schema")
    kind: Storage
    tool: Tool = Field(default_factory=Tool)
    base_fingerprint: str
    harmful_kind: Literal["checkpoint", "adapter", "mixed"]
    harmful_fingerprint: str
    harmful_parents: list[HarmfulParent] = []
    shaped_from: list[Step] = []
    method: str
    parameters: dict[str, float | str]
    relatedness: Relatedness
    tensors: dict[str, TensorSummary]
    left_out: list[str]
    notes: list[str] = []

    @property
    def norm(self) -> float:
        """Euclidean norm of the whole vector."""
        return math.hypot(*(summary.norm for summary in self.tensors.values()))

    @property
    def harmful_digests(self) -> list[dict[str, str]]:
        """Digests by tensor name, one mapping for each harmful parent that is a checkpoint."""
        parents: dict[int, dict[str, str]] = {}
        for name, summary in self.tensors.items():
            for position, blake3 in enumerate(summary.harmful_blake3):
                if blake3 is not None:
                    parents.setdefault(position, {})[name] = blake3
        return list(parents.values())


def combine_parents(parents: Iterable[HarmfulParent]) -> str:
    """Return the fingerprint of a single parent, or the hex SHA-256 over the sorted fingerprints of several."""
    fingerprints = sorted(parent.fingerprint for parent in parents)
    if len(fingerprints) == 1:
        return fingerprints[0]
    return hashlib.sha256("".join(f"{each}\n" for each in fingerprints).encode()).hexdigest()


def read_description(folder: Path) -> VectorDescription:
    """Read `vector.json` of a vector folder.

    Raises:
        ArtefactError: the file is missing, or does not follow the schema (the message names the first invalid field).
    """
    path = folder / DESCRIPTION_NAME
    value = read_json(path, schema=SCHEMA)
    try:
        return VectorDescription.model_validate(value)
    except ValidationError as error:
        raise ArtefactError(f"{path} should follow {SCHEMA}: {first_fault(error)}; make the vector again") from None
