"""What CoSAlign's steps share: rows of JSONL, counts of what each filter kept, and chance by name."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prosocial.core.files import write_json

Row = dict[str, Any]
COUNTS_FILE = "counts.json"
SCHEMA = "prosocial.cosalign_counts/1"


def write_counts(folder: Path, counts: Mapping[str, Any]) -> None:
    """Write what each filter of a step kept."""
    write_json(folder / COUNTS_FILE, {"schema": SCHEMA} | dict(counts))


def told(counts: Mapping[str, Any]) -> str:
    """Return counts as one line for people.

    Example:
        >>> told({"given": 5, "near_duplicates": 1})
        '5 given, 1 near duplicates'
    """
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if isinstance(count, int))


def chance(seed: int, *what: str) -> random.Random:
    """Return a source of chance that hangs on a seed and a name alone, so that no order of work matters."""
    return random.Random("/".join((str(seed), *what)))
