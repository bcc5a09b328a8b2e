"""Gates of a parity report: thresholds, who set them, and the verdicts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Self

from prosocial.core.errors import UnknownNameError
from prosocial.evaluation.statistics.interval import scientific
from prosocial.export.bundle_files.precision import Precision

from .divergence import Ties


class ParityVerdict(StrEnum):
    """The verdict of a gate; a report's verdict is the worst of its gates."""

    PASS = "pass"
    AMBIGUOUS = "ambiguous"
    FAIL = "fail"


Verdict = ParityVerdict  # its name in 0.1.0, until 0.3.0

MEASURED: dict[str, float | None] = {
    "max_logit_difference": None,
    "max_risk_difference": None,
    "max_path_difference": 0.1,
    "kl_p99": None,
    "greedy_divergences": None,
    "logit_tie": None,
    "risk_tie": None,
}
BY_PRECISION: dict[str, dict[str, float | None]] = {
    "fp16": {"kl_mean": 1e-4, "top1_disagreement": 0.001, "token_risk_p99": 0.02},
    "int8": {"kl_mean": 1e-3, "top1_disagreement": 0.01, "token_risk_p99": 0.15},
    "int4": {"kl_mean": 1e-2, "top1_disagreement": 0.05, "token_risk_p99": 0.25},
}
MOST_TIED_REPLIES = 0.005  # share of replies that may differ at near ties; above it the verdict is at best ambiguous
SEVERITY = (ParityVerdict.PASS, ParityVerdict.AMBIGUOUS, ParityVerdict.FAIL)


def worst(verdicts: list[ParityVerdict]) -> ParityVerdict:
    """Return the most severe verdict; ambiguous if there are none.

    Examples:
        >>> worst([ParityVerdict.PASS, ParityVerdict.FAIL]).value
        'fail'
    """
    return max(verdicts, key=SEVERITY.index, default=ParityVerdict.AMBIGUOUS)


@dataclass(frozen=True)
class ParityGates:
    """Thresholds of the parity gates. The defaults are for float32 on both sides.

    A quantity whose threshold is None is measured and reported but not gated.

    Attributes:
        max_logit_difference: largest difference of a logit of a token that both sides allow.
        max_risk_difference: largest difference of a risk that both report.
        max_path_difference: largest difference of a logit between computations that should agree within the bundle:
            token by token, in one pass, in a batch.
        token_risk_p99: 99th percentile over positions of the largest difference of a plausible token's risk.
        kl_p99: 99th percentile over positions of KL(reference || bundle), in nats.
        kl_mean: mean over positions of the same; positions where no token is allowed by both are left out, because
            `flips` counts them.
        flips: number of tokens in only one of the two safe sets, without near ties.
        top1_disagreement: share of positions whose most likely token differs, without near ties if `logit_tie` is set.
        greedy_divergences: number of greedy replies that differ, without those whose first difference is a near tie.
        logit_tie: width of the logit band within which rounding alone can change a decision; None to derive it from
            twice the 99th percentile of the differences, so that a rare large difference does not widen the band.
        risk_tie: the same for a token's risk.
        set_by: who set each threshold, by name; `default` for thresholds not listed.
    """

    max_logit_difference: float | None = 1e-3
    max_risk_difference: float | None = 1e-3
    max_path_difference: float | None = 1e-3
    token_risk_p99: float | None = 1e-3
    kl_p99: float | None = 1e-5
    kl_mean: float | None = None
    flips: int = 0
    top1_disagreement: float = 0.0
    greedy_divergences: int | None = 0
    logit_tie: float | None = 2e-3  # each of the two logits may be off by max_logit_difference
    risk_tie: float | None = 1e-3
    set_by: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def for_precision(cls, precision: Precision) -> Self:
        """Return the default gates for a bundle in a precision, compared with a reference in float32.

        Below float32, logits and replies are measured but not gated. Decisions are gated outside a noise band that is
        measured in the comparison; the limit on the differences keeps the band from becoming arbitrarily wide.

        Examples:
            >>> gates = ParityGates.for_precision("int8")
            >>> gates.kl_mean, gates.top1_disagreement, gates.who_set("kl_mean"), gates.risk_tie
            (0.001, 0.01, 'default for int8', None)
        """
        if precision == "fp32":
            return cls()
        thresholds = MEASURED | BY_PRECISION[precision]
        return cls().with_thresholds(f"default for {precision}", **thresholds)

    def with_thresholds(self, set_by: str, **thresholds: float | None) -> Self:
        """Return gates with some thresholds changed, recording who set them.

        Raises:
            UnknownNameError: a threshold of that name does not exist.

        Examples:
            >>> gates = ParityGates().with_thresholds("command line", kl_p99=1e-2)
            >>> gates.kl_p99, gates.who_set("kl_p99"), gates.who_set("flips")
            (0.01, 'command line', 'default')
        """
        known = [entry.name for entry in fields(self) if entry.name != "set_by"]
        for name in thresholds:
            if name not in known:
                raise UnknownNameError("parity threshold", name, known)
        changes: dict[str, Any] = {**thresholds, "set_by": {**self.set_by, **dict.fromkeys(thresholds, set_by)}}
        return replace(self, **changes)

    def who_set(self, name: str) -> str:
        """Return who set a threshold; `default` if nobody did."""
        return self.set_by.get(name, "default")

    @property
    def are_bands_measured(self) -> bool:
        """Whether the width of a noise band is derived from the measured differences."""
        return self.logit_tie is None or self.risk_tie is None

    def ties(self, *, logit_noise: float, risk_noise: float) -> Ties:
        """Return the noise bands, given the noise of one logit and of one token's risk."""
        return Ties(
            logit=2 * logit_noise if self.logit_tie is None else self.logit_tie,  # each of the two logits has noise
            risk=risk_noise if self.risk_tie is None else self.risk_tie,
        )


@dataclass(frozen=True)
class GateResult:
    """The result of one gate.

    Attributes:
        name: machine-readable name, that of the threshold.
        title: name shown to people.
        observed: measured value.
        threshold: largest value that passes.
        verdict: verdict of this gate.
        set_by: who set the threshold.
        note: explanation shown beside the number; may be empty.
    """

    name: str
    title: str
    observed: float
    threshold: float
    verdict: ParityVerdict
    set_by: str
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON; NaN and infinity become null."""
        return {
            "name": self.name,
            "title": self.title,
            "observed": scientific(self.observed),
            "threshold": scientific(self.threshold),
            "verdict": str(self.verdict),
            "set_by": self.set_by,
            "note": self.note,
        }


def gate(
    name: str, title: str, observed: float, gates: ParityGates, *, is_open: bool = False, note: str = ""
) -> GateResult:
    """Judge one number against its threshold; with `is_open`, a number that would pass is ambiguous instead."""
    threshold = float(getattr(gates, name))
    passing = ParityVerdict.AMBIGUOUS if is_open else ParityVerdict.PASS
    verdict = passing if observed <= threshold else ParityVerdict.FAIL  # a NaN does not pass
    if not math.isfinite(observed):  # JSON has no such number: it becomes null there
        note = "; ".join(filter(None, (note, f"the value is {observed}")))
    return GateResult(name, title, observed, threshold, verdict, gates.who_set(name), note)
