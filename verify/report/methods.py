"""How the numbers were made and what they cannot say, in plain words."""

from collections.abc import Mapping
from typing import Any

from .wording import plural

_METHODS = {
    "Korn-Graubard": "exact interval at the effective sample size, so that probes of one topic count for less "
    "(Korn and Graubard 1998)",
    "Clopper-Pearson": "exact binomial interval; where no reply or every reply has the event, a second reading counts "
    "each topic once, as nothing is then known of how alike the replies of a topic are",
    "Clopper-Pearson, one cluster": "exact binomial interval that counts the single topic once",
    "cluster-robust t": "paired difference, t-interval on the standard error between topics",
    "exact bound on unseen values": "all pairs agree: bound on how many unseen pairs could differ, at the widest with "
    "each topic counted once",
    "range, one cluster": "one topic only: nothing can be said of others, the interval is the whole range",
}


def methods(comparison: Mapping[str, Any], parity: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """Return paragraphs with a title each, from the JSON of a comparison and of a parity report."""
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
            f"{comparison['judge']}. A rate is as good as its judge: its errors are not part of the intervals. "
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
            "McNemar's exact test on the replies that changed, each taken as independent; over harm categories "
            "adjusted with Holm's method. \u201cWould show\u201d is the change that this many probes reveal in four of "
            "five cases.",
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
    limits = (
        "What these probes do not ask was not measured. A low rate here is no promise for other languages, longer "
        "conversations or attacks that nobody tried."
    )
    return [{"title": title, "text": text.strip()} for title, text in [*paragraphs, ("Limits", limits)]]


def _interval_names(comparison: Mapping[str, Any]) -> set[str]:
    results = [*comparison["metrics"], *comparison["attacks"], *comparison["categories"]]
    return {
        interval["method"] for one in results for part in ("rates", "differences") for interval in one[part].values()
    }
