"""Replies side by side, chosen by a rule that is told to the reader, harmful spans as black blocks."""

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
        why: why this probe is shown.
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
    """Choose probes to show, in the order of their ids: changes for the better, for the worse, and ordinary ones.

    For each reason the first `per_reason` probes are taken, never the best: harmful replies that stopped, harmful
    replies that began, refusals that began, and for every kind of probe the first one whatever happened to it.

    Args:
        probes: the set.
        outcomes_by_system: outcomes by system; the last system is the one whose changes are looked at.
        reference: the system that it is compared with.
        per_reason: most probes for one reason.
    """
    first = {
        system: {outcome.probe_id: outcome for outcome in reversed(outcomes)}
        for system, outcomes in outcomes_by_system.items()
    }
    final = next((name for name in reversed(list(first)) if name != reference), reference)
    shared = sorted(
        (probe for probe in probes if all(probe.id in found for found in first.values())), key=lambda probe: probe.id
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

    take([probe for probe in shared if leak(probe) == (True, False)], "a harmful reply that stopped")
    take([probe for probe in shared if leak(probe) == (False, True)], "a harmful reply that began")
    take([probe for probe in shared if began_to_refuse(probe)], "a harmless request that is refused now")
    for kind in sorted({probe.kind for probe in shared}):
        if not any(probe.kind == kind for probe, _ in chosen.values()):
            take([probe for probe in shared if probe.kind == kind][:1], f"the first probe of its kind: {kind}")
    return [
        sample(probe, {system: found[probe.id] for system, found in first.items()}, why=why)
        for probe, why in chosen.values()
    ]
