"""Pairs replies to one prompt under one safety config: the reply with the lower error score is chosen."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import combinations

from ..labelling.reply_label import ReplyLabel
from .error_score import ErrorWeights, breaks, error_score


@dataclass(frozen=True)
class Preference:
    """A preference pair: two replies with their labels and error scores."""

    chosen: str
    rejected: str
    chosen_label: ReplyLabel
    rejected_label: ReplyLabel
    chosen_error: float
    rejected_error: float


def group_by_label(replies: Sequence[tuple[str, ReplyLabel]]) -> dict[ReplyLabel, list[str]]:
    """Return the distinct replies of each label; the order depends only on the replies and their labels."""
    groups: dict[ReplyLabel, list[str]] = {}
    for reply, label in sorted(replies, key=lambda item: (sorted(item[1].harms), item[1].addressed, item[0])):
        if reply not in groups.setdefault(label, []):
            groups[label].append(reply)
    return groups


def pair_replies(
    groups: Mapping[ReplyLabel, Sequence[str]],
    *,
    allowed: Set[str],
    weights: ErrorWeights,
    rng: random.Random,
) -> tuple[list[Preference], Counter[str]]:
    """Return a pair for every two labels whose error scores differ, with a random reply of each label.

    Also returns how many combinations of labels gave a pair (`pair`), were left out because both break the config
    (`both_break`), or have equal scores (`tie`).

    Source: arXiv 2410.08968, section 4 and the authors' code.
    """
    pairs: list[Preference] = []
    counts: Counter[str] = Counter()
    for one, other in combinations(groups, 2):
        errors = {
            label: error_score(label.harms, label.addressed, allowed=allowed, weights=weights) for label in (one, other)
        }
        if breaks(one.harms, allowed=allowed) and breaks(other.harms, allowed=allowed):
            counts["both_break"] += 1
        elif errors[one] == errors[other]:
            counts["tie"] += 1
        else:
            counts["pair"] += 1
            chosen, rejected = sorted((one, other), key=errors.__getitem__)
            replies = rng.choice(groups[chosen]), rng.choice(groups[rejected])
            pairs.append(Preference(*replies, chosen, rejected, errors[chosen], errors[rejected]))
    return pairs, counts
