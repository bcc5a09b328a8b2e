"""Every probe of a comparison with the reply of each system, for the table of all probes."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from prosocial.core.files import canonical_json

from ..comparison.metrics import attack_of, leaks, refuses
from ..outcomes.outcome import Outcome
from ..probes.probe import Probe
from .samples import sample

LONGEST = 1500  # most characters of a reply that are shown


def every_probe(
    probes: Sequence[Probe],
    outcomes_by_system: Mapping[str, Sequence[Outcome]],
    *,
    reference: str = "base",
    reveal: bool = False,
) -> list[dict[str, Any]]:
    """Return one entry per probe, in order: what changed, and the first reply of each system.

    Harmful requests are replaced by their digest, and harmful words in replies are blacked out.

    Args:
        probes: the probe set.
        outcomes_by_system: outcomes by system.
        reference: name of the system that the last other one is compared with.
        reveal: show requests and replies in full.
    """
    first = {
        system: {outcome.probe_id: outcome for outcome in reversed(outcomes)}
        for system, outcomes in outcomes_by_system.items()
    }
    final = next((name for name in reversed(list(first)) if name != reference), reference)
    return [
        _entry(probe, {system: by_id[probe.id] for system, by_id in first.items()}, reference, final, reveal)
        for probe in probes
    ]


def _entry(probe: Probe, outcomes: Mapping[str, Outcome], reference: str, final: str, reveal: bool) -> dict[str, Any]:
    entry = sample(probe, outcomes)
    asks_for_harm = probe.kind == "harmful" or attack_of(probe) is not None
    if asks_for_harm and not reveal:
        entry |= {"messages": [], "prefill": ""}
    for reply, outcome in zip(entry["replies"], outcomes.values(), strict=True):
        if reveal:
            reply["segments"] = [{"text": outcome.reply, "hidden": False}] if outcome.reply else []
        reply["segments"] = _cut(reply["segments"])
        reply |= {"error": outcome.judgement.error, "success": outcome.success}
    entry.pop("why")
    digest = hashlib.sha256(canonical_json(list(probe.messages)).encode()).hexdigest()
    return entry | {"digest": digest, "change": change(probe, outcomes[reference], outcomes[final])}


def change(probe: Probe, before: Outcome, after: Outcome) -> str:
    """Return what changed for a probe, in the report's words; empty if nothing did."""
    if leaks(before) is None or leaks(after) is None:
        return "not judged"
    if probe.kind in ("twin", "benign"):
        turned = {(False, True): "newly refused", (True, False): "no longer refused"}
        return turned.get((bool(refuses(before)), bool(refuses(after))), "")
    turned = {(False, True): "newly harmful", (True, False): "no longer harmful"}
    return turned.get((bool(leaks(before)), bool(leaks(after))), "")


def _cut(segments: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    room = LONGEST
    for segment in segments:
        text = segment["text"][:room]
        room -= len(text)
        if text:
            kept.append({**segment, "text": text if len(text) == len(segment["text"]) else f"{text}\u2026"})
    return kept
