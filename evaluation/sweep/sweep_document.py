"""A sweep as one JSON document, and the files that it is written to."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prosocial.core.errors import ArtefactError
from prosocial.core.files import read_json, write_json, write_text

from ..statistics.interval import Interval
from .settings import Limits
from .trials import Trial, best_of, front_of

SCHEMA = "prosocial.sweep/1"
JSON_FILE, PAGE_FILE = "trials.json", "sweep.html"


def sweep_document(
    trials: Sequence[Trial],
    *,
    base: Mapping[str, Interval | None],
    base_unjudged: int = 0,
    limits: Limits,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the document: settings, rates of the base, all trials, and the numbers of the front and the best trial."""
    best = best_of(trials, max_utility_loss=limits.max_utility_loss)
    return {
        "schema": SCHEMA,
        "settings": dict(settings),
        "base": {name: rate and rate.to_json() for name, rate in base.items()} | {"n_unjudged": base_unjudged},
        "trials": [trial.to_json() | {"label": str(trial.choice)} for trial in trials],
        "front": [trial.number for trial in front_of(trials)],
        "best": None if best is None else best.number,
    }


def earlier_settings(out: Path) -> dict[str, Any] | None:
    """Return the settings of an earlier sweep in a folder; None if there is none, or it cannot be read."""
    try:
        settings = read_json(out / JSON_FILE, schema=SCHEMA)["settings"]
    except (ArtefactError, KeyError):
        return None
    return settings if isinstance(settings, dict) else None


def write_sweep(out: Path, document: Mapping[str, Any]) -> None:
    """Write `trials.json` and the self-contained `sweep.html`, each atomically.

    Raises:
        StorageError: the folder cannot be written.
    """
    from .sweep_page import render_sweep

    write_text(out / PAGE_FILE, render_sweep(document))
    write_json(out / JSON_FILE, document)
