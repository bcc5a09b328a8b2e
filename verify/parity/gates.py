"""Gates of a parity report: what must hold, who set the threshold, and the verdict."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Self

from prosocial.editing.errors import UnknownNameError

from ..statistics.interval import finite
from .divergence import Ties


class Verdict(StrEnum):
    """What a gate says; the whole report says the worst of them."""

    PASS = "pass"
    AMBIGUOUS = "ambiguous"
    FAIL = "fail"


SEVERITY = (Verdict.PASS, Verdict.AMBIGUOUS, Verdict.FAIL)


def worst(verdicts: list[Verdict]) -> Verdict:
    """Return the most severe verdict; none at all is ambiguous."""
    return max(verdicts, key=SEVERITY.index, default=Verdict.AMBIGUOUS)


@dataclass(frozen=True)
class ParityGates:
    """Thresholds. The defaults are for float32 on both sides: defaults, not truths.

    Attributes:
        max_logit_difference: largest difference of a logit that both sides let in.
        kl_p99: 99th percentile over positions of KL(reference || bundle), in nats.
        flips: tokens in one safe set only, near ties left out.
        top1_disagreements: positions whose most likely token differs, near ties left out.
        greedy_divergences: greedy replies that part outside a near tie.
        logit_tie, risk_tie: bands inside which rounding alone may turn a decision.
        set_by: by name of a threshold, who set it; `default` where it does not say.
    """

    max_logit_difference: float = 1e-3
    kl_p99: float = 1e-5
    flips: int = 0
    top1_disagreements: int = 0
    greedy_divergences: int = 0
    logit_tie: float = 2e-3  # both of two logits may move by max_logit_difference
    risk_tie: float = 1e-3
    set_by: Mapping[str, str] = field(default_factory=dict)

    def with_thresholds(self, set_by: str, **thresholds: float) -> Self:
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
    def ties(self) -> Ties:
        """The bands."""
        return Ties(logit=self.logit_tie, risk=self.risk_tie)


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
    verdict: Verdict
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


def scientific(value: float) -> float | None:
    """Return a number with six significant digits, or None if it is not finite."""
    return None if finite(value) is None else float(f"{value:.6g}")


def gate(
    name: str, title: str, observed: float, gates: ParityGates, *, near_ties: int = 0, note: str = ""
) -> GateResult:
    """Judge one number against its threshold; with `near_ties`, a passing one becomes ambiguous."""
    threshold = float(getattr(gates, name))
    passing = Verdict.AMBIGUOUS if near_ties else Verdict.PASS
    verdict = passing if observed <= threshold else Verdict.FAIL  # a NaN does not pass
    return GateResult(name, title, observed, threshold, verdict, gates.who_set(name), note)
