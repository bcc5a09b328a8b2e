"""What a run's folder holds: the stages that are done, and what each left."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from prosocial.core.artefacts import Artefact
from prosocial.core.errors import ArtefactError
from prosocial.core.files import read_json

from ..workflow.store import SCHEMA, Store

STORE = "store"

EARLIER = "of an earlier version, without digests: the next run makes it again"


class Marker(BaseModel):
    """What is shown of the marker of a stage's result.

    Attributes:
        stage, key: name and key of the stage.
        summary: what came out.
        seconds: how long it took.
        dual_use: whether the result could do harm.
        files: BLAKE3 of each file of the result; its bytes in markers of 0.1.0.
    """

    stage: str
    key: str
    summary: str = ""
    seconds: float = 0.0
    dual_use: bool = False
    files: dict[str, str | int]

    @property
    def is_old(self) -> bool:
        """Whether it was written by version 0.1.0, whose markers have no digests."""
        return any(isinstance(value, int) for value in self.files.values())


def describe_run(folder: Path) -> dict[str, Any] | None:
    """Describe the folder of `prosocial run`, or its store; None: it is neither."""
    store = folder / STORE if (folder / STORE).is_dir() else folder
    markers = [marker for path in sorted(store.glob("*.json")) if (marker := _marker(path))]
    if not markers:
        return None
    stages = [_stage(store, marker) for marker in markers]
    return {
        "kind": str(Artefact.RUN),
        "n_stages": len(markers),
        "size_bytes": sum(stage["size_bytes"] for stage in stages),
        "seconds": round(sum(marker.seconds for marker in markers), 3),
        "stages": stages,
    }


def describe_stage(folder: Path) -> dict[str, Any] | None:
    """Describe a folder as the result of a stage by the marker beside it; None: there is none."""
    folder = folder.resolve()  # a run's links lead into its store
    marker = _marker(folder.with_name(f"{folder.name}.json"))
    return None if marker is None else _stage(folder.parent, marker)


def _marker(path: Path) -> Marker | None:
    try:
        return Marker.model_validate(read_json(path, schema=SCHEMA))
    except (ArtefactError, ValidationError):
        return None


def _stage(store: Path, marker: Marker) -> dict[str, Any]:
    result = Store(store).result(marker.stage, marker.key)
    sizes = {name: (result / name).stat().st_size for name in marker.files if (result / name).is_file()}
    is_done = sizes == marker.files if marker.is_old else Store(store).marker(marker.stage, marker.key) is not None
    state = (EARLIER if marker.is_old else "done") if is_done else "deleted or not whole"
    return {
        "stage": marker.stage,
        "summary": marker.summary,
        "state": state,
        "size_bytes": sum(sizes.values()),
        "seconds": marker.seconds,
        "dual_use": marker.dual_use,
        "files": marker.files,
    }
