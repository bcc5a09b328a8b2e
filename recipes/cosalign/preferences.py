"""Builds the training rows: preference pairs for DPO, and their chosen replies for supervised tuning."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from prosocial.steering.configs.category_registry import NEVER_ALLOWED

from ..labelling.replies import NOT_LABELLED
from ..labelling.reply_label import ReplyLabel
from .configs import under_config
from .error_score import ErrorWeights
from .pairing import Preference, group_by_label, pair_replies
from .rows import Row, chance


def make_preferences(
    prompts: Sequence[Row],
    configs: Iterable[Row],
    labelled: Iterable[Row],
    *,
    pool: Collection[str],
    weights: ErrorWeights,
    seed: int,
) -> tuple[list[Row], Counter[str]]:
    """Return a row for every preference pair, and counts of the combinations that gave a pair or were left out.

    Harms outside the pool count as `other`, which no config allows. For the counts see `pair_replies`.
    """
    by_id = {row["id"]: row for row in prompts}
    replies: dict[str, list[tuple[str, ReplyLabel]]] = {row["id"]: [] for row in prompts}
    for row in labelled:
        if NOT_LABELLED not in row:
            label = ReplyLabel(frozenset(row["harms"]), row["addressed"])
            replies[row["prompt"]].append((row["reply"], label.collapsed(set(pool), rest=NEVER_ALLOWED)))
    groups = {prompt_id: group_by_label(labelled_replies) for prompt_id, labelled_replies in replies.items()}
    rows: list[Row] = []
    counts = Counter(configs=0, pair=0, tie=0, both_break=0)
    for number, config in enumerate(row for row in configs if row["purpose"] == "pair"):
        name = config["prompt"]
        rng = chance(seed, name, config["mode"], str(number))
        pairs, outcomes = pair_replies(groups[name], allowed=set(config["allowed"]), weights=weights, rng=rng)
        counts.update(outcomes, configs=1)
        rows += [_row(by_id[name], config, pair) for pair in pairs]
    return rows, counts


def chosen_rows(preferences: Iterable[Row]) -> list[Row]:
    """Return the distinct chosen replies with their conversations, for supervised tuning."""
    distinct = {
        (str(row["messages"]), row["chosen"]): {"messages": row["messages"], "reply": row["chosen"]}
        for row in preferences
    }
    return list(distinct.values())


def _row(prompt: Row, config: Row, pair: Preference) -> Row:
    return {
        "prompt": prompt["id"],
        "messages": under_config(prompt, config["system"]),
        "chosen": pair.chosen,
        "rejected": pair.rejected,
        "mode": config["mode"],
        "allowed": config["allowed"],
        "prompt_harms": prompt["harms"],
        "chosen_harms": sorted(pair.chosen_label.harms),
        "rejected_harms": sorted(pair.rejected_label.harms),
        "chosen_error": pair.chosen_error,
        "rejected_error": pair.rejected_error,
    }
