"""What a run's folder holds: the stages that are done, and what each left."""

from pathlib import Path
from typing import Any

from prosocial.core.artefacts import Artefact
from prosocial.core.errors import ArtefactError
from prosocial.core.files import read_json

from ..workflow.store import SCHEMA, Store

STORE = "store"


def describe_run(folder: Path) -> dict[str, Any] | None:
    """Describe the folder of `prosocial run`, or its store; None: it is neither."""
    store = folder / STORE if (folder / STORE).is_dir() else folder
    markers = [marker for path in sorted(store.glob("*.json")) if (marker := _marker(path))]
    if not markers:
        return None
    stages = sorted((_stage(store, marker) for marker in markers), key=lambda stage: str(stage["stage"]))
    return {
        "kind": str(Artefact.RUN),
        "n_stages": len(stages),
        "size_bytes": sum(stage["size_bytes"] for stage in stages),
        "seconds": round(sum(stage["seconds"] for stage in stages), 3),
        "stages": stages,
    }


def describe_stage(folder: Path) -> dict[str, Any] | None:
    """Describe a folder as the result of a stage by the marker beside it; None: there is none."""
    folder = folder.resolve()  # a run's links lead into its store
    marker = _marker(folder.with_name(f"{folder.name}.json"))
    return None if marker is None else _stage(folder.parent, marker)


def _marker(path: Path) -> dict[str, Any] | None:
    try:
        return read_json(path, schema=SCHEMA)
    except ArtefactError:
        return None


def _stage(store: Path, marker: dict[str, Any]) -> dict[str, Any]:
    name, key = str(marker["stage"]), str(marker["key"])
    return {
        "stage": name,
        "summary": marker.get("summary"),
        "state": "done" if Store(store).marker(name, key) else "deleted or not whole",
        "size_bytes": sum(marker["files"].values()),
        "seconds": marker.get("seconds", 0.0),
        "dual_use": marker.get("dual_use", False),
        "files": marker["files"],
    }
