"""The JSON of an audit, `prosocial.audit/1`; its schema lies beside this file as `audit.schema.json`."""

from typing import Any, Literal, Self

from pydantic import Field

from prosocial.editing.checkpoints.header import TensorInfo
from prosocial.editing.vectors.description import Tool
from prosocial.evaluation.report.part import ReportPart

from .verdicts import AuditVerdict

SCHEMA = "prosocial.audit/1"
SCHEMA_FILE = "audit.schema.json"
Level = Literal[1, 2, 3]


class Weight(ReportPart):
    """How much of a vector is in the model: `model = base + weight * vector`, below 0 where it was subtracted.

    Attributes:
        vector: name of its folder.
        low, high: ends of what explains every element; null where nothing bounds it.
        estimate: the shortest decimal between them; null where an end is missing.
        bf16_of: the short decimal whose bf16 number the estimate is, where the interval holds such a number.
    """

    vector: str
    low: float | None
    high: float | None
    estimate: float | None
    bf16_of: float | None = None


class Element(ReportPart):
    """An element that contradicts the claim; a value that is no finite number is null.

    Attributes:
        index: its place.
        base, found, expected: the base's number, the model's, and what the claim gives.
    """

    index: tuple[int, ...]
    base: float | None
    found: float | None
    expected: float | None


class TensorAudit(ReportPart):
    """One tensor.

    Attributes:
        level: 1 by digest, 2 by recomputation, 3 by its elements alone.
        reason: in words.
        arithmetic: that explains it, or comes nearest; null where none was needed.
        weights: of each vector that changes it; empty where none does, or nothing was recovered.
        n_elements, n_misfits: how many there are, and how many the claim does not explain.
        elements: the first of those.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    level: Level
    verdict: AuditVerdict
    reason: str
    arithmetic: str | None = None
    weights: tuple[Weight, ...] = ()
    n_elements: int
    n_misfits: int = 0
    elements: tuple[Element, ...] = ()

    @classmethod
    def of(cls, tensor: TensorInfo, level: Level, verdict: AuditVerdict, reason: str, **facts: Any) -> Self:
        """Return what was found of a tensor of the model."""
        said: dict[str, Any] = {
            "name": tensor.name,
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "n_elements": tensor.n_elements,
        }
        return cls(level=level, verdict=verdict, reason=reason, **said, **facts)


class LevelAudit(ReportPart):
    """One way of looking, and what it found."""

    level: Level
    title: str
    verdict: AuditVerdict
    reasons: tuple[str, ...]


class SideDifference(ReportPart):
    """Something beside the weights that differs from the base, and changes what the model says.

    Attributes:
        part: chat template, generation config, config, tokenizer or code.
        file: its relative path.
        difference: in words.
    """

    part: str
    file: str
    difference: str


class AuditReport(ReportPart):
    """What an audit found.

    Attributes:
        model, base, vectors: names of the folders.
        fingerprint: of the model's weights, so that a report cannot be taken for another model's.
        verdict: the worst of all.
        levels: in their order; a level that could not run is not there.
        weights: of each vector over all tensors that one number explains; empty where tensors differ, or at level 2.
        side_files: against the base; null without one.
    """

    schema_: Literal["prosocial.audit/1"] = Field(default="prosocial.audit/1", alias="schema")
    tool: Tool = Field(default_factory=Tool)
    model: str
    fingerprint: str
    base: str | None
    vectors: tuple[str, ...]
    verdict: AuditVerdict
    levels: tuple[LevelAudit, ...]
    weights: tuple[Weight, ...]
    tensors: tuple[TensorAudit, ...]
    side_files: tuple[SideDifference, ...] | None

    def to_json(self) -> dict[str, Any]:
        """Return plain data that follows the schema."""
        return self.model_dump(mode="json", by_alias=True)


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of the document, as `audit.schema.json` holds it."""
    schema = AuditReport.model_json_schema(by_alias=True, mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema
