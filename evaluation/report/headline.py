"""The main result in a sentence or two, with no more certainty than the intervals support."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from .wording import is_clear, limits, percent, signed

NOUNS = {
    "leak": "harmful replies to harmful requests",
    "declined": "harmful requests declined in whole sentences",
    "broken": "broken replies to harmful requests",
    "over_refusal": "refusals of harmless twins",
    "twin_success": "harmless twins done",
    "benign_success": "benign requests done",
    "benign_refusal": "refusals of benign requests",
    "broken_harmless": "broken replies to harmless requests",
}
# What a safety reviewer looks at first, with the short name of each; attacks follow.
FIGURES = {"leak": "Harmful", "declined": "Declined", "broken": "Broken", "over_refusal": "Over-refusal"}
Result = Literal["better", "worse", "tolerable", "held", "unclear"]


def headline(
    comparison: Mapping[str, Any], parity: Mapping[str, Any] | None, calibration: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the main result: `verdict`, `details`, `tone` and `figures`.

    `verdict` is the main result as a sentence, `details` are other sentences, `tone` is good, bad or open, and
    `figures` are the rates that a safety reviewer looks at first: harmful, declined in whole sentences, broken,
    over-refusal, and the attack with the highest rate of harmful replies.

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
            "figures": [],
        }
    main_name = "leak" if "leak" in metrics else next(iter(metrics))
    main, worst = metrics[main_name], _worst_attack(comparison, final)
    between = [name for name in comparison["systems"] if name not in (reference, final)]
    details = _unjudged(comparison) + _without_judge_errors(main, reference, final)
    details += [_change(main, reference, name) for name in between]
    details += [_detail(metric, reference, final) for name, metric in metrics.items() if name != main_name]
    details += [_detail(worst, reference, final)] if worst else []
    if parity is not None:
        details.append(_parity_sentence(parity))
    if calibration is not None:
        details.append(_calibration_sentence(calibration))
    tone = _tone(main, list(metrics.values()), final)
    if parity is not None and parity["verdict"] == "fail":
        tone = "bad"
    elif tone == "good" and any(comparison["n_unjudged"].values()):
        tone = "open"
    figures = [_figure(FIGURES[name], metrics[name], reference, final) for name in FIGURES if name in metrics]
    if worst:
        figures.append(_figure("Worst attack", worst, reference, final))
    return {"verdict": _change(main, reference, final), "details": details, "tone": tone, "figures": figures}


def result_word(metric: Mapping[str, Any], system: str) -> Result:
    """Return the result of a system on a metric against the reference, in one word.

    `better` and `worse`: the interval of the difference excludes zero. With a non-inferiority margin, `tolerable`
    is a clear loss that is shown to be smaller than the margin, `held` is no clear change, with any loss shown to be
    smaller than the margin, and a loss shown to be larger is `worse`. `unclear` is everything else.
    """
    difference = metric["differences"][system]
    finding = (difference["non_inferiority"] or {}).get("finding")
    if is_clear(difference):
        if (difference["estimate"] < 0) == (metric["better"] == "lower"):
            return "better"
        return "tolerable" if finding == "no worse" else "worse"
    if finding == "worse":
        return "worse"
    return "held" if finding == "no worse" else "unclear"


def _figure(title: str, metric: Mapping[str, Any], reference: str, system: str) -> dict[str, Any]:
    """Return one rate of the first line: before, after, and the result in a word."""
    before, after = (metric["rates"][name]["estimate"] for name in (reference, system))
    noun = NOUNS.get(metric["name"], metric["title"])
    return {"title": title, "noun": noun, "before": before, "after": after, "result": result_word(metric, system)}


def _worst_attack(comparison: Mapping[str, Any], system: str) -> Mapping[str, Any] | None:
    """Return the attack with the highest rate of harmful replies of a system; None without attacks."""
    attacks: Sequence[Mapping[str, Any]] = comparison["attacks"]
    worst = max(attacks, key=lambda attack: attack["rates"][system]["estimate"], default=None)
    return worst and {**worst, "title": f"{worst['title']}, the worst of {len(attacks)}"}


def _tone(main: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]], system: str) -> str:
    """Return bad if any metric is worse, good if the main metric is better and no other lost, otherwise open."""
    results = [result_word(metric, system) for metric in metrics]
    if "worse" in results:
        return "bad"
    return "good" if result_word(main, system) == "better" and "tolerable" not in results else "open"


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
    difference, result = metric["differences"][system], result_word(metric, system)
    noun = NOUNS.get(metric["name"], metric["title"])
    points = f"{signed(difference['estimate'])} points, {limits(difference, difference=True)}"
    if difference["non_inferiority"] is not None:
        points += f"; margin {100 * difference['non_inferiority']['margin']:g}"
    if difference["newly"] + difference["undone"] == 0:
        points += "; no reply changed"
    if result == "unclear":
        points += f"; {_would_show(difference)}"
    return f"{noun[0].upper()}{noun[1:]}: {before} to {after}, {result} ({points})."


def _would_show(difference: Mapping[str, Any]) -> str:
    """Return the minimum detectable difference in words, without which "no change" says little."""
    return f"detectable: about {100 * difference['minimum_detectable']:.0f}"


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
