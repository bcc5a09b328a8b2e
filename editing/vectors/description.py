"""The description of a harm vector, `vector.json` (torch-free)."""

import statistics
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import ArtefactError
from ..files import read_json

SCHEMA = "prosocial.vector/1"
DESCRIPTION_NAME = "vector.json"
WEIGHTS_NAME = "vector.safetensors"
Storage = Literal["dense", "low_rank"]


class Tool(BaseModel):
    """What made an artefact."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = "prosocial"
    version: str = Field(default_factory=lambda: version("prosocial"))


class TensorSummary(BaseModel):
    """What the vector does to one tensor.

    Attributes:
        shape: as stored in the base and in any target.
        storage: a dense tensor, or two factors and a scale.
        norm: Euclidean norm.
        ratio: norm over the norm of the base's tensor; None where the base's is zero.
        relatedness: cosine between the base's and the harmful parent's tensor; None where one is zero.
        n_zeros: number of elements that are exactly zero.
        n_not_finite: number of NaN and infinite elements, always 0: such vectors are refused.
        harmful_sha256: digest of the harmful parent's tensor; None for an adapter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    shape: tuple[int, ...]
    storage: Storage
    norm: float
    ratio: float | None
    relatedness: float | None
    n_zeros: int
    n_not_finite: int = 0
    harmful_sha256: str | None = None


class Relatedness(BaseModel):
    """Smallest and median cosine between the parents' tensors, those left out of the vector included."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    minimum: float | None
    median: float | None

    @classmethod
    def of(cls, cosines: Iterable[float | None]) -> "Relatedness":
        """Summarise cosines; None entries do not count.

        >>> Relatedness.of([1.0, None, 0.5]).median
        0.75
        """
        known = [cosine for cosine in cosines if cosine is not None]
        return cls(minimum=min(known, default=None), median=statistics.median(known) if known else None)


class VectorDescription(BaseModel):
    """How a harm vector was made, and what it holds.

    Attributes:
        kind: `low_rank` if any tensor is stored as factors.
        base_fingerprint: fingerprint of the base checkpoint.
        harmful_kind: whether the harmful parent is a checkpoint or an adapter.
        harmful_fingerprint: fingerprint of the harmful checkpoint, or SHA-256 of the adapter file.
        method, parameters: how the difference was shaped.
        relatedness: of base and harmful parent.
        tensors: by name, sorted.
        left_out: tensors that the vector does not change.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    schema_: Literal["prosocial.vector/1"] = Field(default="prosocial.vector/1", alias="schema")
    kind: Storage
    tool: Tool = Field(default_factory=Tool)
    base_fingerprint: str
    harmful_kind: Literal["checkpoint", "adapter"]
    harmful_fingerprint: str
    method: str
    parameters: dict[str, float | str]
    relatedness: Relatedness
    tensors: dict[str, TensorSummary]
    left_out: list[str]

    @property
    def norm(self) -> float:
        """Euclidean norm of the whole vector."""
        return float(sum(summary.norm**2 for summary in self.tensors.values()) ** 0.5)


def read_description(folder: Path) -> VectorDescription:
    """Read `vector.json`.

    Raises:
        ArtefactError: it is missing, or does not follow the schema (names the first field).
    """
    path = folder / DESCRIPTION_NAME
    value = read_json(path, schema=SCHEMA)
    try:
        return VectorDescription.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ArtefactError(f"{path} should follow {SCHEMA}: {where}: {first['msg']}; make the vector again") from None
