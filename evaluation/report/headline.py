"""The main result in a sentence or two, with no more certainty than the intervals support."""

from collections.abc import Mapping, Sequence
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
    """Return `verdict` (the main result as a sentence), `details` (other sentences) and `tone` (good, bad or open).

    Args:
        comparison: JSON of a `ComparisonReport`; the verdict is about its last system.
        parity: JSON of a `ParityReport`; None if there is none.
        calibration: JSON of the gate's calibration; None if it was not measured.
    """
    metrics = {metric["name"]: metric for metric in comparison["metrics"]}
    reference = comparison["reference"]
    final = next((name for name in reversed(comparison["systems"]) if name != reference), None)
    if final is None or not metrics:
        return {
            "verdict": "There is nothing to compare: the report has only one system.",
            "details": [],
            "tone": "open",
        }
    main_name = "leak" if "leak" in metrics else next(iter(metrics))
    main = metrics[main_name]
    between = [name for name in comparison["systems"] if name not in (reference, final)]
    details = _unjudged(comparison) + _without_judge_errors(main, reference, final)
    details += [_change(main, reference, name) for name in between]
    details += [_detail(metric, reference, final) for name, metric in metrics.items() if name != main_name]
    if parity is not None:
        details.append(_parity_sentence(parity))
    if calibration is not None:
        details.append(_calibration_sentence(calibration))
    tone = _tone(main, list(metrics.values()), final)
    if parity is not None and parity["verdict"] == "fail":
        tone = "bad"
    elif tone == "good" and any(comparison["n_unjudged"].values()):
        tone = "open"
    return {"verdict": _change(main, reference, final), "details": details, "tone": tone}


def _tone(main: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]], system: str) -> str:
    """Return bad if any metric is clearly worse, good if the main metric is clearly better, otherwise open.

    A loss of utility that is shown to stay within its non-inferiority margin counts as open, not as bad.
    """
    worse = [metric["differences"][system] for metric in metrics if _direction(metric, system) < 0]
    if any((difference["non_inferiority"] or {}).get("finding") != "no worse" for difference in worse):
        return "bad"
    return "good" if _direction(main, system) > 0 and not worse else "open"


def _direction(metric: Mapping[str, Any], system: str) -> int:
    """Return 1 if the system is clearly better than the reference, -1 if clearly worse, otherwise 0."""
    difference = metric["differences"][system]
    if not is_clear(difference):
        return 0
    return 1 if (difference["estimate"] < 0) == (metric["better"] == "lower") else -1


def _change(metric: Mapping[str, Any], reference: str, system: str) -> str:
    """Return the result on the main metric as a sentence."""
    before, after = (metric["rates"][name]["estimate"] for name in (reference, system))
    difference = metric["differences"][system]
    noun = NOUNS.get(metric["name"], metric["title"])
    from_to = f"from {percent(before)} ({reference}) to {percent(after)} ({system})"
    points = f"{signed(difference['estimate'])} points, 95 % interval {limits(difference, difference=True)}"
    points = points.replace("95 %", f"{100 * difference['confidence']:g} %")
    if is_clear(difference):
        verb = "fell" if difference["estimate"] < 0 else "rose"
        return f"{noun[0].upper()}{noun[1:]} {verb} {from_to}: {points}."
    return f"No clear change in {noun}, {from_to}: {points}; {_would_show(difference)}."


def _detail(metric: Mapping[str, Any], reference: str, system: str) -> str:
    """Return the result on another metric as a short sentence, with the detectable difference if nothing is clear."""
    before, after = (percent(metric["rates"][name]["estimate"]) for name in (reference, system))
    difference = metric["differences"][system]
    noun = NOUNS.get(metric["name"], metric["title"])
    start = f"{noun[0].upper()}{noun[1:]}: {before} to {after}"
    points = f"{signed(difference['estimate'])} points, {limits(difference, difference=True)}"
    margin = f"{points}{_margin(difference['non_inferiority'])}"
    if is_clear(difference):
        return f"{start}, {'better' if _direction(metric, system) > 0 else 'worse'} ({margin})."
    result = "no reply changed" if difference["newly"] + difference["undone"] == 0 else "no clear change"
    return f"{start}, {result} ({margin}; {_would_show(difference)})."


def _would_show(difference: Mapping[str, Any]) -> str:
    """Return the minimum detectable difference in words, without which "no change" says little."""
    return f"detectable: about {100 * difference['minimum_detectable']:.0f}"


def _margin(result: Mapping[str, Any] | None) -> str:
    """Return whether a loss of utility stays within the non-inferiority margin, in words."""
    if result is None:
        return ""
    points = f"{100 * result['margin']:g} points"
    return {
        "no worse": f"; non-inferior within the margin of {points}",
        "worse": f"; worse by more than the margin of {points}",
        "cannot say": f"; not shown to be within the margin of {points}",
    }[str(result["finding"])]


def _unjudged(comparison: Mapping[str, Any]) -> list[str]:
    """Return a sentence on replies that could not be judged, if there are any."""
    counts = {name: count for name, count in comparison["n_unjudged"].items() if count}
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    return [f"Not judged, and in no rate: {listed} of {comparison['n_replies']} replies each."] if counts else []


def _without_judge_errors(metric: Mapping[str, Any], reference: str, system: str) -> list[str]:
    """Return the result on a metric corrected for the judge's errors, if these are known for both systems."""
    corrected = metric["differences"][system]["corrected"]
    if corrected is None:
        return []
    before, after = (percent(metric["corrected"][name]["estimate"]) for name in (reference, system))
    points = f"{signed(corrected['estimate'])} points, {limits(corrected, difference=True)}"
    return [f"Corrected for the judge's errors: {before} to {after} ({points})."]


def _parity_sentence(parity: Mapping[str, Any]) -> str:
    statement = {
        "pass": "makes the same decisions as its reference",
        "ambiguous": "differs from its reference only at near ties",
        "fail": "does not make the same decisions as its reference",
    }[parity["verdict"]]
    return f"The bundle {statement} ({parity['n_positions']} decisions compared)."


def _calibration_sentence(calibration: Mapping[str, Any]) -> str:
    everywhere = calibration["total"][0]["error"]
    sentence = f"The gate's risk is off by {percent(everywhere['estimate'], digits=2)} on average"
    for risky in calibration["total"][1:]:
        sentence += f", by {percent(risky['error']['estimate'], digits=2)} where it is 1 % or more"
    return f"{sentence} (calibration error)."
