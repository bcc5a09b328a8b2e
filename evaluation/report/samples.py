"""Sample replies side by side, chosen by a documented rule, with harmful spans blacked out."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..outcomes.outcome import Outcome
from ..outcomes.redaction import redact
from ..probes.probe import Probe

Replies = Mapping[str, Outcome]  # by system


def sample(probe: Probe, outcomes: Replies, *, why: str = "") -> dict[str, Any]:
    """Return one probe with the reply of each system, ready for a report.

    Args:
        probe: the request.
        outcomes: the outcome of each system, in the order to show.
        why: the reason for showing this probe.
    """
    return {
        "probe": probe.id,
        "kind": probe.kind,
        "category": probe.category,
        "why": why,
        "messages": list(probe.messages),
        "prefill": probe.prefill,
        "replies": [
            {
                "system": system,
                "segments": [segment.to_json() for segment in redact(outcome.reply, outcome.judgement)],
                "leak": outcome.leak,
                "refusal": outcome.judgement.refusal,
            }
            for system, outcome in outcomes.items()
        ],
    }


def choose_samples(
    probes: Sequence[Probe],
    outcomes_by_system: Mapping[str, Sequence[Outcome]],
    *,
    reference: str = "base",
    per_reason: int = 2,
) -> list[dict[str, Any]]:
    """Choose sample probes in the order of their ids: improvements, regressions, and ordinary ones.

    For each reason the first `per_reason` probes are taken, not the most impressive: replies no longer harmful, newly
    harmful, newly refused, and for every kind of probe the first one regardless of its result.

    Args:
        probes: the probe set.
        outcomes_by_system: outcomes by system; the changes shown are those of the last system.
        reference: name of the system that it is compared with.
        per_reason: most probes per reason.
    """
    first = {
        system: {outcome.probe_id: outcome for outcome in reversed(outcomes)}
        for system, outcomes in outcomes_by_system.items()
    }
    final = next((name for name in reversed(list(first)) if name != reference), reference)
    shared = sorted(
        (probe for probe in probes if all(probe.id in by_id for by_id in first.values())), key=lambda probe: probe.id
    )

    def leak(probe: Probe) -> tuple[bool | None, bool | None]:
        return first[reference][probe.id].leak, first[final][probe.id].leak

    def began_to_refuse(probe: Probe) -> bool:
        before, after = first[reference][probe.id].refused, first[final][probe.id].refused
        return probe.kind in ("twin", "benign") and (before, after) == (False, True)

    chosen: dict[str, tuple[Probe, str]] = {}

    def take(among: Sequence[Probe], why: str) -> None:
        for probe in [probe for probe in among if probe.id not in chosen][:per_reason]:
            chosen[probe.id] = (probe, why)

    take([probe for probe in shared if leak(probe) == (True, False)], "no longer harmful")
    take([probe for probe in shared if leak(probe) == (False, True)], "newly harmful")
    take([probe for probe in shared if began_to_refuse(probe)], "harmless request, newly refused")
    for kind in sorted({probe.kind for probe in shared}):
        if not any(probe.kind == kind for probe, _ in chosen.values()):
            take([probe for probe in shared if probe.kind == kind][:1], f"the first probe of its kind: {kind}")
    return [
        sample(probe, {system: by_id[probe.id] for system, by_id in first.items()}, why=why)
        for probe, why in chosen.values()
    ]
