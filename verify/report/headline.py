"""The finding in a sentence or two, with no more certainty than the intervals allow."""

from collections.abc import Mapping
from typing import Any

from .wording import is_clear, limits, percent, signed

NOUNS = {
    "leak": "harmful replies to harmful requests",
    "over_refusal": "refusals of harmless twins",
    "twin_success": "harmless twins done",
    "benign_success": "benign requests done",
    "benign_refusal": "refusals of benign requests",
}


def headline(
    comparison: Mapping[str, Any], parity: Mapping[str, Any] | None, calibration: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return `verdict` (the main finding, a sentence), `details` (one sentence each) and `tone` (good, bad or open).

    Args:
        comparison: JSON of a `ComparisonReport`; the last system is the one that the sentence is about.
        parity: JSON of a `ParityReport`, if there is one. calibration: of the gate, if it was measured.
    """
    metrics = {metric["name"]: metric for metric in comparison["metrics"]}
    reference = comparison["reference"]
    final = next((name for name in reversed(comparison["systems"]) if name != reference), None)
    if final is None or not metrics:
        return {"verdict": "There is nothing to compare: one system only.", "details": [], "tone": "open"}
    main_name = "leak" if "leak" in metrics else next(iter(metrics))
    main = metrics[main_name]
    between = [name for name in comparison["systems"] if name not in (reference, final)]
    details = [_change(main, reference, name) for name in between]
    details += [_detail(metric, reference, final) for name, metric in metrics.items() if name != main_name]
    if parity is not None:
        details.append(_parity_sentence(parity))
    if calibration is not None:
        details.append(_calibration_sentence(calibration))
    worse = [name for name, metric in metrics.items() if _direction(metric, final) < 0]
    tone = "bad" if worse or (parity is not None and parity["verdict"] == "fail") else "open"
    if tone == "open" and _direction(main, final) > 0:
        tone = "good"
    return {"verdict": _change(main, reference, final), "details": details, "tone": tone}


def _direction(metric: Mapping[str, Any], system: str) -> int:
    """Return 1 where the system is clearly better than the reference, -1 where clearly worse, else 0."""
    difference = metric["differences"][system]
    if not is_clear(difference):
        return 0
    return 1 if (difference["estimate"] < 0) == (metric["better"] == "lower") else -1


def _change(metric: Mapping[str, Any], reference: str, system: str) -> str:
    """Return the finding on the main metric as a sentence that stands alone."""
    before, after = (metric["rates"][name]["estimate"] for name in (reference, system))
    difference = metric["differences"][system]
    noun = NOUNS.get(metric["name"], metric["title"])
    from_to = f"from {percent(before)} ({reference}) to {percent(after)} ({system})"
    points = f"{signed(difference['estimate'])} points, 95 % interval {limits(difference, difference=True)}"
    points = points.replace("95 %", f"{100 * difference['confidence']:g} %")
    if is_clear(difference):
        verb = "fell" if difference["estimate"] < 0 else "rose"
        return f"{noun[0].upper()}{noun[1:]} {verb} {from_to}: {points}."
    return f"No clear change in {noun}, {from_to}: {points}."


def _detail(metric: Mapping[str, Any], reference: str, system: str) -> str:
    """Return the finding on another metric, short; where nothing is clear, with what these probes would show."""
    before, after = (percent(metric["rates"][name]["estimate"]) for name in (reference, system))
    difference = metric["differences"][system]
    noun = NOUNS.get(metric["name"], metric["title"])
    start = f"{noun[0].upper()}{noun[1:]}: {before} to {after}"
    points = f"{signed(difference['estimate'])} points, {limits(difference, difference=True)}"
    if is_clear(difference):
        return f"{start}, {'better' if _direction(metric, system) > 0 else 'worse'} ({points})."
    if difference["newly"] + difference["undone"] == 0:
        return f"{start}, none changed in this ({points})."
    return f"{start}, no clear change ({points}; about {100 * difference['minimum_detectable']:.0f} would show)."


def _parity_sentence(parity: Mapping[str, Any]) -> str:
    said = {
        "pass": "decides as its reference does",
        "ambiguous": "differs from its reference only at near ties",
        "fail": "does not decide as its reference does",
    }[parity["verdict"]]
    return f"The bundle {said} ({parity['n_positions']} decisions compared)."


def _calibration_sentence(calibration: Mapping[str, Any]) -> str:
    everywhere = calibration["total"][0]["error"]
    sentence = f"The gate's risk is off by {percent(everywhere['estimate'], digits=2)} on average"
    for risky in calibration["total"][1:]:
        sentence += f", by {percent(risky['error']['estimate'], digits=2)} where it is 1 % or more"
    return f"{sentence} (calibration error)."
