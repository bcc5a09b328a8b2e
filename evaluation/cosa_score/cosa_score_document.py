"""Scores of several systems as plain JSON, and what they say in one line."""

from collections.abc import Mapping, Sequence
from typing import Any

from .configs import ScoredConfig
from .scores import score_runs
from .verdicts import CosaVerdict

SCHEMA = "prosocial.cosa_score/1"


def score_document(
    verdicts: Mapping[str, Sequence[CosaVerdict]],
    configs: Sequence[ScoredConfig],
    *,
    facts: Mapping[str, Any] | None = None,
    unread: Mapping[str, int] | None = None,
    seed: int = 0,
    draws: int = 1000,
) -> dict[str, Any]:
    """Return the report on systems that were asked the same questions.

    Args:
        verdicts: by system. configs: in the order of the report. facts: such as the judge and the seed.
        unread: by system with a filter, how many of its answers were neither yes nor no. seed, draws: of the bootstrap.

    Raises:
        InputError: not one reply of a system could be judged.
    """
    return {
        "schema": SCHEMA,
        "facts": dict(facts or {}),
        "configs": [config.to_json() for config in configs],
        "systems": {
            name: score_runs([found], configs, seed=seed, draws=draws)
            | {"n_unread_filter_answers": (unread or {}).get(name, 0)}
            for name, found in verdicts.items()
        },
    }


def n_unjudged(document: Mapping[str, Any]) -> int:
    """Return how many replies of all systems could not be judged."""
    return sum(system["n_unjudged"] for system in document["systems"].values())
