"""The JSON of a comparison, `prosocial.parity_report/3`; its schema lies beside this file as `parity.schema.json`."""

from typing import Any, Literal

from pydantic import Field

from prosocial.evaluation.report.part import ReportPart

SCHEMA_FILE = "parity.schema.json"
Word = Literal["pass", "ambiguous", "fail"]


class Gate(ReportPart):
    """One gate: a number that is not finite is null, and does not pass."""

    name: str
    title: str
    observed: float | None
    threshold: float | None
    verdict: Word
    set_by: str
    note: str


class Place(ReportPart):
    """Where both sides part first on the way through the model, and the last place before it that agrees."""

    place: str
    after: str | None
    error: float | None


class Position(ReportPart):
    """A decision: index 0 is the first token of the reply to a prompt."""

    prompt: str
    position: int


class Summary(ReportPart):
    """A number over all positions; null where it is not finite."""

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
    """Share of the reference's ten most likely tokens that are among the bundle's, as they are and near ties apart."""

    raw: float
    apart: float


class Bands(ReportPart):
    """Margins inside which rounding alone may turn a decision."""

    logit: float | None
    risk: float | None
    set_by: Literal["measured", "gates"]


class FlipEntry(Position):
    """A token that one side lets in and the other keeps out; margins are the reference's, null where not known."""

    token: int
    safe_in: Literal["reference", "bundle"]
    near_tie: bool
    plausibility_margin: float | None
    safety_margin: float | None


class SafeSet(ReportPart):
    """The safety decisions.

    Attributes:
        n_decisions: tokens that at least one side lets in.
        n_prompts_with_margins: prompts whose decisions both gates were asked about, token by token; what follows up to
            `certified_share` is of these.
        n_positions_near_threshold, n_prompts_near_threshold: where a risk lies inside the band.
        risk_moved_at_most, certified_share: the most that any risk differs, and the share of positions where no risk
            lies that near to the threshold; null without a gate.
        flip_share_at_most, prompt_flip_share_at_most: exact upper 95 % limits, over decisions and over prompts.
        flips: the first of them.
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
    """Where two greedy replies part, and the reference's first logit minus its second there."""

    margin: float | None
    near_tie: bool


class Greedy(ReportPart):
    """The most likely replies."""

    n_identical: int
    n: int
    median_first_difference: float | None
    differences: list[Parting]


class SettingEntry(ReportPart):
    """What was found under one steering."""

    setting: str
    n_prompts: int
    n_positions: int
    max_logit_difference: float | None
    n_flips: int
    n_near_ties: int
    n_parted: int


class PromptEntry(ReportPart):
    """What was found on one prompt under one steering; `parts_at` is null where the greedy replies are identical."""

    prompt: str
    setting: str
    n_positions: int
    max_logit_difference: float | None
    max_kl: float | None
    n_flips: int
    n_near_ties: int
    parts_at: int | None


class ParityDocument(ReportPart):
    """A judged comparison; `ParityReport.to_json` says what the parts are."""

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
