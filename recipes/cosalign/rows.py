"""Helpers of CoSAlign's stages: JSONL rows, counts of what each filter kept, and named random generators."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prosocial.core.files import write_json

Row = dict[str, Any]
COUNTS_FILE = "counts.json"
SCHEMA = "prosocial.cosalign_counts/1"


def write_counts(folder: Path, counts: Mapping[str, Any]) -> None:
    """Write the counts of a stage to `counts.json` in a folder."""
    write_json(folder / COUNTS_FILE, {"schema": SCHEMA} | dict(counts))


def count_summary(counts: Mapping[str, Any]) -> str:
    """Return counts as one line of text.

    Examples:
        >>> count_summary({"given": 5, "near_duplicates": 1})
        '5 given, 1 near duplicates'
    """
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if isinstance(count, int))


def chance(seed: int, *what: str) -> random.Random:
    """Return a random generator that depends only on a seed and a name, so that the order of work does not matter."""
    return random.Random("/".join((str(seed), *what)))
