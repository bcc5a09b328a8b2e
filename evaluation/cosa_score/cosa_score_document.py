"""The scores of several systems as one JSON document."""

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
    """Return the report on systems that answered the same questions.

    Args:
        verdicts: verdicts by system.
        configs: configs in the order of the report.
        facts: further facts for the report, such as judge and seed.
        unread: number of a filter's answers that were neither yes nor no, by system with a filter.
        seed: seed of the bootstrap.
        draws: number of bootstrap resamples.

    Raises:
        InputError: no reply of a system could be judged.
    """
    return {
        "schema": SCHEMA,
        "facts": dict(facts or {}),
        "configs": [config.to_json() for config in configs],
        "systems": {
            name: score_runs([own], configs, seed=seed, draws=draws)
            | {"n_unread_filter_answers": (unread or {}).get(name, 0)}
            for name, own in verdicts.items()
        },
    }


def n_unjudged(document: Mapping[str, Any]) -> int:
    """Return the number of replies, over all systems, that could not be judged."""
    return sum(system["n_unjudged"] for system in document["systems"].values())
