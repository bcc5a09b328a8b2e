"""The base of what a JSON report holds, so that all of them follow one convention."""

from pydantic import BaseModel, ConfigDict


class ReportPart(BaseModel):
    """A part of a report: frozen, finite, without unknown keys; written with every key."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        allow_inf_nan=False,
        json_schema_serialization_defaults_required=True,
    )
