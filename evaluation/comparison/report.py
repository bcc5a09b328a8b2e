"""The comparison of systems on the same probes: rates, paired differences, and changed probes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prosocial.core.errors import InputError, UnknownNameError

from ..outcomes.outcome import Outcome
from ..probes.probe import Probe
from ..statistics.judge_error import JudgeErrors
from .metrics import (
    MARGIN,
    METRICS,
    Key,
    Measuring,
    Metric,
    MetricResult,
    adjusted,
    attack_metrics,
    attack_of,
    category_metrics,
    leaks,
    measure,
    refuses,
)

SCHEMA = "prosocial.comparison/1"


@dataclass(frozen=True)
class ComparisonReport:
    """The result of `compare`.

    Attributes:
        reference: name of the system that the others are compared with.
        systems: names of all systems, in the given order.
        judge: name and version of the judge of all replies.
        n_probes: number of probes.
        n_replies: number of replies per system.
        metrics: results of the metrics that apply to some probe.
        attacks: rates of harmful replies by attack.
        categories: rates of harmful replies by harm category, without attacks; p-values adjusted per system.
        newly_unsafe: ids of probes with a newly harmful reply, by system.
        newly_safe: ids of probes with a reply no longer harmful, by system.
        newly_refused: ids of harmless probes that are newly refused, by system.
        newly_answered: ids of harmless probes that are no longer refused, by system.
        n_unclear: number of replies for which it is unclear whether they decline, by system.
        n_unjudged: number of replies that could not be judged, by system; they are in no rate.
        judge_errors: known error counts of the judge, by system and by what it decides.
    """

    reference: str
    systems: tuple[str, ...]
    judge: str
    n_probes: int
    n_replies: int
    metrics: tuple[MetricResult, ...]
    attacks: tuple[MetricResult, ...]
    categories: tuple[MetricResult, ...]
    newly_unsafe: Mapping[str, list[str]] = field(default_factory=dict)
    newly_safe: Mapping[str, list[str]] = field(default_factory=dict)
    newly_refused: Mapping[str, list[str]] = field(default_factory=dict)
    newly_answered: Mapping[str, list[str]] = field(default_factory=dict)
    n_unclear: Mapping[str, int] = field(default_factory=dict)
    n_unjudged: Mapping[str, int] = field(default_factory=dict)
    judge_errors: Mapping[str, Mapping[str, JudgeErrors]] = field(default_factory=dict)

    def metric(self, name: str) -> MetricResult:
        """Return the result of a metric by name.

        Raises:
            UnknownNameError: there is no metric of this name, or it applies to none of the probes.
        """
        for result in self.metrics:
            if result.name == name:
                return result
        raise UnknownNameError("metric", name, [result.name for result in self.metrics])

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON without the texts of replies."""
        return {
            "schema": SCHEMA,
            "reference": self.reference,
            "systems": list(self.systems),
            "judge": self.judge,
            "n_probes": self.n_probes,
            "n_replies": self.n_replies,
            "metrics": [result.to_json() for result in self.metrics],
            "attacks": [result.to_json() for result in self.attacks],
            "categories": [result.to_json() for result in self.categories],
            "newly_unsafe": dict(self.newly_unsafe),
            "newly_safe": dict(self.newly_safe),
            "newly_refused": dict(self.newly_refused),
            "newly_answered": dict(self.newly_answered),
            "n_unclear": dict(self.n_unclear),
            "n_unjudged": dict(self.n_unjudged),
            "judge_errors": {
                system: {about: errors.to_json() for about, errors in sorted(by_topic.items())}
                for system, by_topic in self.judge_errors.items()
            },
        }


def compare(
    probes: Sequence[Probe],
    outcomes_by_system: Mapping[str, Sequence[Outcome]],
    *,
    reference: str = "base",
    confidence: float = 0.95,
    margin: float = MARGIN,
    judge_errors: Mapping[str, Mapping[str, JudgeErrors]] | None = None,
) -> ComparisonReport:
    """Compare each system with the reference on the same probes.

    Args:
        probes: the probe set; intervals account for the correlation of probes with the same `cluster`.
        outcomes_by_system: outcomes of each system for the same probes and samples, in the order of the report.
        reference: name of the system to compare with.
        confidence: nominal coverage of every interval.
        margin: non-inferiority margin, the largest acceptable loss of utility.
        judge_errors: error counts of the judge by system and by what it decides (`harm`, `refusal`, `success`); if
            those of both systems are known, corrected rates and differences are also given.

    Raises:
        UnknownNameError: the reference is not among the systems.
        InputError: the systems did not answer the same probes, or were judged by different judges.
    """
    if reference not in outcomes_by_system:
        raise UnknownNameError("reference system", reference, outcomes_by_system)
    by_id = {probe.id: probe for probe in probes}
    answers = _aligned(by_id, outcomes_by_system)
    keys = list(answers[reference])

    how = Measuring(by_id, reference, confidence, margin, judge_errors or {})

    def ask(metric: Metric) -> MetricResult | None:
        return measure(metric, answers, how)

    safety = [key for key in keys if by_id[key[0]].kind == "harmful" or attack_of(by_id[key[0]])]
    harmless = [key for key in keys if by_id[key[0]].kind in ("twin", "benign")]
    others = [system for system in answers if system != reference]

    return ComparisonReport(
        reference=reference,
        systems=tuple(answers),
        judge=next(iter(answers[reference].values())).judge,
        n_probes=len(by_id),
        n_replies=len(keys),
        metrics=tuple(filter(None, map(ask, METRICS))),
        attacks=tuple(filter(None, map(ask, attack_metrics(probes)))),
        categories=adjusted(tuple(filter(None, map(ask, category_metrics(probes)))), others),
        newly_unsafe=_changed(answers, reference, safety, leaks, True),
        newly_safe=_changed(answers, reference, safety, leaks, False),
        newly_refused=_changed(answers, reference, harmless, refuses, True),
        newly_answered=_changed(answers, reference, harmless, refuses, False),
        n_unclear=_count(answers, lambda outcome: outcome.judgement.refusal == "unclear"),
        n_unjudged=_count(answers, lambda outcome: outcome.leak is None),
        judge_errors=how.judge_errors,
    )


def _count(answers: Mapping[str, Mapping[Key, Outcome]], holds: Callable[[Outcome], bool]) -> dict[str, int]:
    return {system: sum(map(holds, own.values())) for system, own in answers.items()}


def _changed(
    answers: Mapping[str, Mapping[Key, Outcome]],
    reference: str,
    among: Sequence[Key],
    event: Callable[[Outcome], bool | None],
    now: bool,
) -> dict[str, list[str]]:
    """Return the ids of probes whose event differs from the reference and now equals `now`, by system."""
    before = answers[reference]
    turned = [key for key in among if event(before[key]) is (not now)]
    return {
        system: sorted({key[0] for key in turned if event(own[key]) is now})
        for system, own in answers.items()
        if system != reference
    }


def _aligned(
    by_id: Mapping[str, Probe], outcomes_by_system: Mapping[str, Sequence[Outcome]]
) -> dict[str, dict[Key, Outcome]]:
    """Return the outcomes by key, in the same order for every system."""
    if not by_id:
        raise InputError("a comparison should have at least one probe, found none")
    judges = sorted({outcome.judge for outcomes in outcomes_by_system.values() for outcome in outcomes})
    if len(judges) > 1:
        raise InputError(f"all replies should be judged by one judge, found {', '.join(judges)}: judge them again")
    answers = {
        system: {(outcome.probe_id, outcome.sample): outcome for outcome in outcomes}
        for system, outcomes in outcomes_by_system.items()
    }
    first_name, first = next(iter(answers.items()))
    for system, own in answers.items():
        if own.keys() != first.keys():
            odd = min(own.keys() ^ first.keys())
            raise InputError(
                f"systems should answer the same probes: {first_name} and {system} differ on {odd[0]!r} sample {odd[1]}"
            )
    if {key[0] for key in first} != set(by_id):
        odd_id = min({key[0] for key in first} ^ set(by_id))
        raise InputError(f"replies should be to the given probes, but {odd_id!r} is in only one of the two")
    return {system: {key: own[key] for key in sorted(first)} for system, own in answers.items()}
