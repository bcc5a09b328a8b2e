"""Gates of a parity report: what must hold, who set the threshold, and the verdict."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Self

from prosocial.core.errors import UnknownNameError
from prosocial.evaluation.statistics.interval import scientific
from prosocial.export.bundle_files.precision import Precision

from .divergence import Ties


class ParityVerdict(StrEnum):
    """What a gate says; the whole report says the worst of them."""

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
MOST_TIED_REPLIES = 0.005  # share of replies that rounding alone may part at near ties; beyond it nothing is sure
SEVERITY = (ParityVerdict.PASS, ParityVerdict.AMBIGUOUS, ParityVerdict.FAIL)


def worst(verdicts: list[ParityVerdict]) -> ParityVerdict:
    """Return the most severe verdict; none at all is ambiguous."""
    return max(verdicts, key=SEVERITY.index, default=ParityVerdict.AMBIGUOUS)


@dataclass(frozen=True)
class ParityGates:
    """Thresholds. The defaults are for float32 on both sides: defaults, not truths.

    None leaves a number without a gate: it is measured and reported all the same.

    Attributes:
        max_logit_difference: largest difference of a logit that both sides let in.
        max_risk_difference: largest difference of a risk that both report.
        max_path_difference: largest difference of a logit between ways that should give the same in the bundle: token
            by token, in one pass, in a batch.
        token_risk_p99: 99th percentile over positions of the largest difference of a plausible token's risk.
        kl_p99, kl_mean: over positions, of KL(reference || bundle), in nats; the mean leaves out positions where no
            token is let in by both, which the flips count.
        flips: tokens in one safe set only, near ties left out.
        top1_disagreement: share of positions whose most likely token differs; near ties left out if the band is given.
        greedy_divergences: greedy replies that part outside a near tie.
        logit_tie, risk_tie: bands inside which rounding alone may turn a decision; None: measured, from twice the 99th
            percentile of the differences, so that a rare large one excuses nothing, least of all itself.
        set_by: by name of a threshold, who set it; `default` where it does not say.
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
    logit_tie: float | None = 2e-3  # both of two logits may move by max_logit_difference
    risk_tie: float | None = 1e-3
    set_by: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def for_precision(cls, precision: Precision) -> Self:
        """Return the default gates for a bundle whose weights are in that precision, the reference in float32.

        Logits and replies of a lower precision are measured, not gated; its decisions are, outside the noise that the
        comparison itself measures. The limit on that noise keeps the band from excusing everything.

        Example:
            >>> gates = ParityGates.for_precision("int8")
            >>> gates.kl_mean, gates.top1_disagreement, gates.who_set("kl_mean"), gates.risk_tie
            (0.001, 0.01, 'default for int8', None)
        """
        if precision == "fp32":
            return cls()
        thresholds = MEASURED | BY_PRECISION[precision]
        return cls().with_thresholds(f"default for {precision}", **thresholds)

    def with_thresholds(self, set_by: str, **thresholds: float | None) -> Self:
        """Return gates with other thresholds and the name of who set them.

        Raises:
            UnknownNameError: a threshold that there is not.

        Example:
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
        """Return who set a threshold."""
        return self.set_by.get(name, "default")

    @property
    def are_bands_measured(self) -> bool:
        """Whether a band is to be as wide as the differences measured."""
        return self.logit_tie is None or self.risk_tie is None

    def ties(self, *, logit_noise: float, risk_noise: float) -> Ties:
        """Return the bands, given how far one logit and the risk of one token move by noise."""
        return Ties(
            logit=2 * logit_noise if self.logit_tie is None else self.logit_tie,  # both of two logits may move
            risk=risk_noise if self.risk_tie is None else self.risk_tie,
        )


@dataclass(frozen=True)
class GateResult:
    """One gate.

    Attributes:
        name, title: for machines and for people.
        observed, threshold: what was found, and the most that passes.
        verdict: of this gate.
        set_by: who set the threshold.
        note: what to know beside the number; may be empty.
    """

    name: str
    title: str
    observed: float
    threshold: float
    verdict: ParityVerdict
    set_by: str
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON; a number that is not finite becomes null."""
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
    """Judge one number against its threshold; where the question `is_open`, what would pass is ambiguous."""
    threshold = float(getattr(gates, name))
    passing = ParityVerdict.AMBIGUOUS if is_open else ParityVerdict.PASS
    verdict = passing if observed <= threshold else ParityVerdict.FAIL  # a NaN does not pass
    return GateResult(name, title, observed, threshold, verdict, gates.who_set(name), note)
