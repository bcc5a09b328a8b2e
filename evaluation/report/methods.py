"""How the numbers were made and what they cannot say, in plain words."""

from collections.abc import Mapping
from typing import Any

from .wording import percent, plural

_METHODS = {
    "Korn-Graubard": "exact interval at the effective sample size, so that probes of one topic count for less "
    "(Korn and Graubard 1998)",
    "Clopper-Pearson": "exact binomial interval; where no reply or every reply has the event, a second reading counts "
    "each topic once, as nothing is then known of how alike the replies of a topic are",
    "Clopper-Pearson, one cluster": "exact binomial interval that counts the single topic once",
    "Wilson score": "score interval for independent replies (Wilson 1927)",
    "Newcombe paired difference": "paired difference from two score intervals and their correlation (Newcombe 1998, "
    "method 10)",
    "cluster-robust t": "paired difference, t-interval on the standard error between topics",
    "exact bound on unseen values": "all pairs agree: bound on how many unseen pairs could differ, at the widest with "
    "each topic counted once",
    "range, one cluster": "one topic only: nothing can be said of others, the interval is the whole range",
}


def methods(
    comparison: Mapping[str, Any], parity: Mapping[str, Any] | None, calibration: Mapping[str, Any] | None = None
) -> list[dict[str, str]]:
    """Return paragraphs with a title each, from the JSON of a comparison, of a parity report and of a calibration."""
    intervals = sorted(_interval_names(comparison))
    confidence = next(
        (100 * rate["confidence"] for metric in comparison["metrics"] for rate in metric["rates"].values()), 95.0
    )
    undecided = sum(metric["n_undecided"] for metric in comparison["metrics"])
    unclear = ", ".join(f"{system} {count}" for system, count in comparison["n_unclear"].items() if count)
    paragraphs = [
        (
            "Probes",
            f"{plural(comparison['n_probes'], 'probe')}, {plural(comparison['n_replies'], 'reply')} per system. All "
            "systems answer the same probes, and differences are taken probe by probe.",
        ),
        (
            "Judge",
            f"{comparison['judge']}. A rate is as good as its judge: its errors are not part of the intervals"
            + ("" if comparison["judge_errors"] else ", and nobody said how large they are")
            + ". "
            + _corrections(comparison)
            + (f"Replies that could not be judged were left out: {undecided}. " if undecided else "")
            + (f"Replies of which it is unclear whether they decline: {unclear}." if unclear else ""),
        ),
        (
            "Intervals",
            f"{confidence:g} % each. "
            + "; ".join(f"{name}: {_METHODS.get(name, 'see the JSON')}" for name in intervals)
            + ".",
        ),
        (
            "Tests",
            "McNemar's exact test on the replies that changed, whole topics at a time where probes share them; over "
            "harm categories adjusted with Holm's method. Utility is called no worse where the widest interval of the "
            "loss stays inside the margin, whatever the p-value. \u201cWould show\u201d is the change that this many "
            "probes reveal in four of five cases.",
        ),
    ]
    if parity is not None:
        paragraphs.append(
            (
                "Parity",
                f"{plural(parity['n_prompts'], 'prompt')}, {plural(parity['n_positions'], 'decision')}: both engines "
                "read the reference's own reply and decide on every next token; then each replies freely. KL is taken "
                "in float64 on the tokens that both let in. A near tie is a decision that rounding alone could turn.",
            )
        )
    if calibration is not None:
        paragraphs.append(("Calibration", _calibration_text(calibration)))
    limits = (
        "What these probes do not ask was not measured. A low rate here is no promise for other languages, longer "
        "conversations or attacks that nobody tried."
    )
    return [{"title": title, "text": text.strip()} for title, text in [*paragraphs, ("Limits", limits)]]


def _corrections(comparison: Mapping[str, Any]) -> str:
    """Return how the judge's known errors were taken out, and how large they are."""
    known = [
        f"{system}, {about}: finds {percent(row['found'] / row['n_events'])} of {row['n_events']}, clears "
        f"{percent(row['cleared'] / row['n_others'])} of {row['n_others']}"
        for system, rows in comparison["judge_errors"].items()
        for about, row in rows.items()
    ]
    if not known:
        return ""
    return (
        "Corrected rates are without these errors (Rogan and Gladen 1978), what is not known of the errors is in their "
        f"intervals: {'; '.join(known)}. "
    )


def _calibration_text(calibration: Mapping[str, Any]) -> str:
    """Return what the gate's risk is the chance of, and how that was checked."""
    discount = calibration["discount"]
    ends = "never" if discount == 1 else f"after each token with probability {1 - discount:.2g}"
    return (
        f"At every token of {plural(calibration['n_replies'], 'reply')} of the ungated model the gate's risk is "
        "compared with what came: the chance that the text, read on from that token, realises the harm before the "
        f"reading ends, which it does {ends}. The risk of any harm is the sum over categories, which bounds it from "
        "above. The expected calibration error is the mean gap over 15 bins of equal mass; intervals are from "
        "resampled replies, and noise within bins adds to the error. The threshold is the largest that passed its test "
        "of the leak rate; candidates are tested from the strictest up to the first that fails, on prompts that the "
        "report's probes are not among."
    )


def _interval_names(comparison: Mapping[str, Any]) -> set[str]:
    results = [*comparison["metrics"], *comparison["attacks"], *comparison["categories"]]
    return {
        interval["method"] for one in results for part in ("rates", "differences") for interval in one[part].values()
    }
