"""The JSON document of a comparison, `prosocial.parity_report/3`; its JSON schema is `parity.schema.json`."""

from typing import Any, Literal

from pydantic import Field

from prosocial.evaluation.report.part import ReportPart

SCHEMA_FILE = "parity.schema.json"
Word = Literal["pass", "ambiguous", "fail"]


class Gate(ReportPart):
    """One gate; NaN and infinity are written as null and do not pass."""

    name: str
    title: str
    observed: float | None
    threshold: float | None
    verdict: Word
    set_by: str
    note: str


class Place(ReportPart):
    """The first point in a forward pass that differs, and the last point before it that agrees."""

    place: str
    after: str | None
    error: float | None


class Position(ReportPart):
    """The position of a decision; 0 is the first token of the reply to a prompt."""

    prompt: str
    position: int


class Summary(ReportPart):
    """Statistics of a number over all positions; null where not finite."""

    mean: float | None
    standard_error: float | None
    min: float | None
    p1: float | None
    p5: float | None
    p10: float | None
    median: float | None
    p90: float | None
    p99: float | None
    p99_9: float | None
    max: float | None
    worst: Position


class TopTen(ReportPart):
    """Share of the reference's ten likeliest tokens among the bundle's; `apart` does not count near ties as missing."""

    raw: float
    apart: float


class Bands(ReportPart):
    """Widths of the bands within which rounding alone can change a decision."""

    logit: float | None
    risk: float | None
    set_by: Literal["measured", "gates"]


class FlipEntry(Position):
    """A token in only one of the two safe sets; margins are the reference's, null where not computed."""

    token: int
    safe_in: Literal["reference", "bundle"]
    near_tie: bool
    plausibility_margin: float | None
    safety_margin: float | None


class SafeSet(ReportPart):
    """The safety decisions.

    Attributes:
        n_decisions: number of tokens that at least one side allows, summed over positions.
        n_prompts_with_margins: number of prompts whose margins were computed; the fields up to `certified_share` are
            over these prompts.
        n_positions_near_threshold: number of positions where a token's risk lies inside the noise band.
        n_prompts_near_threshold: number of prompts with such a position.
        risk_moved_at_most: largest difference of any token's risk; null without a gate.
        certified_share: share of positions where every token's risk is farther than that from the threshold; null
            without a gate.
        flip_share_at_most: exact upper 95 % confidence limit of the share of decisions that differ.
        prompt_flip_share_at_most: exact upper 95 % confidence limit of the share of prompts with a differing decision.
        flips: the first 50 differing decisions.
    """

    n_decisions: int
    bands: Bands
    n_prompts_with_margins: int
    n_positions_near_threshold: int | None
    n_prompts_near_threshold: int | None
    risk_moved_at_most: float | None
    certified_share: float | None
    n_flips: int
    n_near_ties: int
    n_unsafe_let_in: int
    flip_share_at_most: float | None
    prompt_flip_share_at_most: float | None
    sizes_differ: int
    flips: list[FlipEntry]


class Parting(Position):
    """The first difference of two greedy replies, and the reference's largest minus second largest logit there."""

    margin: float | None
    near_tie: bool


class Greedy(ReportPart):
    """The comparison of the greedy replies."""

    n_identical: int
    n: int
    median_first_difference: float | None
    differences: list[Parting]


class SettingEntry(ReportPart):
    """The comparison under one steering."""

    setting: str
    n_prompts: int
    n_positions: int
    max_logit_difference: float | None
    n_flips: int
    n_near_ties: int
    n_parted: int


class PromptEntry(ReportPart):
    """The comparison on one prompt under one steering; `parts_at` is null where the greedy replies are identical."""

    prompt: str
    setting: str
    n_positions: int
    max_logit_difference: float | None
    max_kl: float | None
    n_flips: int
    n_near_ties: int
    parts_at: int | None


class ParityDocument(ReportPart):
    """A judged comparison, as `ParityReport.to_json` returns it."""

    schema_: Literal["prosocial.parity_report/3"] = Field(default="prosocial.parity_report/3", alias="schema")
    reference: str
    bundle: str
    subject: dict[str, str]
    verdict: Word
    gates: list[Gate]
    first_difference: Place | None
    n_prompts: int
    n_positions: int
    logit_difference: Summary | None
    kl: Summary | None
    risk_difference: Summary | None
    token_risk_difference: Summary | None
    top1_agreement: float | None
    top10: TopTen | None
    safe_set: SafeSet
    greedy: Greedy
    settings: list[SettingEntry]
    prompts: list[PromptEntry]
    config_differences: list[str]
    paths: dict[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """Return plain data that follows the schema."""
        return self.model_dump(mode="json", by_alias=True)


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of the document, as `parity.schema.json` holds it."""
    schema = ParityDocument.model_json_schema(by_alias=True, mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema
