"""The base class of the parts of JSON reports, so that all follow one convention."""

from pydantic import BaseModel, ConfigDict


class ReportPart(BaseModel):
    """A part of a report: immutable, with finite numbers and no unknown keys; all keys are written."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        allow_inf_nan=False,
        json_schema_serialization_defaults_required=True,
    )
