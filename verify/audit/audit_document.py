"""The JSON document of an audit, `prosocial.audit/1`; its JSON schema is `audit.schema.json`."""

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
    """The weight of a vector in the model: `model = base + weight * vector`, below 0 if the vector was subtracted.

    Attributes:
        vector: name of the vector's folder.
        low: lower end of the interval of weights that explain every element; null if unbounded.
        high: upper end of that interval; null if unbounded.
        estimate: shortest decimal in the interval; null if an end is unbounded.
        bf16_of: short decimal that the estimate is the bf16 rounding of, if the interval holds such a number.
    """

    vector: str
    low: float | None
    high: float | None
    estimate: float | None
    bf16_of: float | None = None


class Element(ReportPart):
    """An element that contradicts the claim; NaN and infinity are written as null.

    Attributes:
        index: index of the element in the tensor.
        base: value in the base.
        found: value in the model.
        expected: value that follows from the claim.
    """

    index: tuple[int, ...]
    base: float | None
    found: float | None
    expected: float | None


class TensorAudit(ReportPart):
    """The audit of one tensor.

    Attributes:
        level: 1 for digests, 2 for recomputation, 3 for recovery from the weights alone.
        reason: the reason for the verdict, in words.
        arithmetic: the arithmetic that explains the tensor, or comes nearest; null if none was needed.
        weights: weight of each vector that changes the tensor; empty if none does, or none was recovered.
        n_elements: number of elements.
        n_misfits: number of elements that the claim does not explain.
        elements: the first of the unexplained elements.
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
        """Return the audit of a tensor of the model."""
        facts_of_tensor: dict[str, Any] = {
            "name": tensor.name,
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "n_elements": tensor.n_elements,
        }
        return cls(level=level, verdict=verdict, reason=reason, **facts_of_tensor, **facts)


class LevelAudit(ReportPart):
    """The result of one level of the audit."""

    level: Level
    title: str
    verdict: AuditVerdict
    reasons: tuple[str, ...]


class SideDifference(ReportPart):
    """A difference from the base outside the weights that can change the model's output.

    Attributes:
        part: chat template, generation config, config, tokenizer or code.
        file: relative path of the file.
        difference: the difference in words.
    """

    part: str
    file: str
    difference: str


class AuditReport(ReportPart):
    """The result of an audit.

    Attributes:
        model: name of the model's folder.
        fingerprint: fingerprint of the model's weights, which ties the report to this model.
        base: name of the base's folder; null if none was given.
        vectors: names of the vectors' folders.
        verdict: the worst verdict of all levels.
        levels: result of each level that could run, in order.
        weights: weight of each vector that explains all its tensors; empty where tensors differ, or at level 2.
        side_files: files other than the weights that differ from the base; null if no base was given.
        unverified: what only the edit record states, in words: it was neither recomputed nor compared with anything.
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
    unverified: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data that follows the schema."""
        return self.model_dump(mode="json", by_alias=True)


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of the document, as `audit.schema.json` holds it."""
    schema = AuditReport.model_json_schema(by_alias=True, mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema
