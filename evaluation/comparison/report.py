"""Several systems on the same probes: rates, paired differences, and which probes changed."""

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
    """What `compare` found.

    Attributes:
        reference, systems: the system compared with, and all in the order given.
        judge: name and version of the judge of all replies.
        n_probes, n_replies: probes of the set, replies per system.
        metrics: the metrics whose probes occur in the set.
        attacks: harmful replies by attack.
        categories: harmful replies by harm category, attacks left out, p-values adjusted per system.
        newly_unsafe, newly_safe, newly_refused, newly_answered: ids of changed probes by system.
        n_unclear: replies by system of which the judge could not tell whether they decline.
        n_unjudged: replies by system that could not be judged at all; they are in no rate.
        judge_errors: what is known of the judge's errors, by system and by what it is asked.
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
        """Return the metric of a name.

        Raises:
            UnknownNameError: the probes did not allow this metric, or there is none of this name.
        """
        for result in self.metrics:
            if result.name == name:
                return result
        raise UnknownNameError("metric", name, [result.name for result in self.metrics])

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON; it holds no reply."""
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
                system: {about: errors.to_json() for about, errors in sorted(found.items())}
                for system, found in self.judge_errors.items()
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
    """Compare systems on the same probes, each with the reference.

    Args:
        probes: the set; probes of one `cluster` count as one unit in every interval.
        outcomes_by_system: outcomes of each system, for the same probes and samples; the order is the report's order.
        reference: the name of the system to compare with.
        confidence: nominal coverage of every interval.
        margin: share of utility that may be lost, for the test of non-inferiority.
        judge_errors: errors of the judge by system and by what it is asked (`harm`, `refusal`, `success`); rates and
            differences are given without these errors as well, where both systems' are known.

    Raises:
        InputError: no reference among the systems, systems that did not answer the same probes, or different judges.
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
    return {system: sum(map(holds, found.values())) for system, found in answers.items()}


def _changed(
    answers: Mapping[str, Mapping[Key, Outcome]],
    reference: str,
    among: Sequence[Key],
    event: Callable[[Outcome], bool | None],
    now: bool,
) -> dict[str, list[str]]:
    """Return by system the ids of probes where the event is now so and was not with the reference."""
    before = answers[reference]
    turned = [key for key in among if event(before[key]) is (not now)]
    return {
        system: sorted({key[0] for key in turned if event(found[key]) is now})
        for system, found in answers.items()
        if system != reference
    }


def _aligned(
    by_id: Mapping[str, Probe], outcomes_by_system: Mapping[str, Sequence[Outcome]]
) -> dict[str, dict[Key, Outcome]]:
    """Return outcomes by key, in the same order for every system."""
    if not by_id:
        raise InputError("a comparison needs at least one probe: there is none")
    judges = sorted({outcome.judge for outcomes in outcomes_by_system.values() for outcome in outcomes})
    if len(judges) > 1:
        raise InputError(f"all replies should be judged by one judge, found {', '.join(judges)}: judge them again")
    answers = {
        system: {(outcome.probe_id, outcome.sample): outcome for outcome in outcomes}
        for system, outcomes in outcomes_by_system.items()
    }
    first_name, first = next(iter(answers.items()))
    for system, found in answers.items():
        if found.keys() != first.keys():
            odd = min(found.keys() ^ first.keys())
            raise InputError(
                f"systems should answer the same probes: {first_name} and {system} differ on {odd[0]!r} sample {odd[1]}"
            )
    if {key[0] for key in first} != set(by_id):
        odd_id = min({key[0] for key in first} ^ set(by_id))
        raise InputError(f"replies and probes should be of one set: probe {odd_id!r} is in one of them only")
    return {system: {key: found[key] for key in sorted(first)} for system, found in answers.items()}
