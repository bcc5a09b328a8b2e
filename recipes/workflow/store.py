"""Where the results of stages lie: whole and marked, or not there (torch-free).

    STORE/gate-1f0c9a55b2d7/         the artefact of one stage, exactly as the stage wrote it
    STORE/gate-1f0c9a55b2d7.json     its marker, written last: without a valid one the folder is never used again
    STORE/.gate-1f0c9a55b2d7.partial/  a stage at work; left behind by a killed run, deleted by the next
    STORE/.gate-1f0c9a55b2d7.scratch/  what a stage keeps to resume from; deleted when the stage succeeds

The marker lies beside the folder, so that an artefact holds its own files and nothing of the run that made it.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prosocial.core.errors import ArtefactError, InputError, StorageError
from prosocial.core.files import read_json, storage_errors, sync_folder, write_json
from prosocial.core.locking import locked

from .resources import say_bytes

SCHEMA = "prosocial.stage/1"
KEY_LETTERS = 12
_RESULT_NAME = re.compile(rf"[a-z][a-z0-9-]*-[0-9a-f]{{{KEY_LETTERS}}}")


class Store:
    """A folder of stage results.

    Args:
        folder: made when the first stage is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def result(self, stage: str, key: str) -> Path:
        """Return where the artefact of a stage with this key lies, or would lie."""
        return self.folder / f"{stage}-{key[:KEY_LETTERS]}"

    def marker(self, stage: str, key: str) -> dict[str, Any] | None:
        """Return the marker of a result that is whole, or None: no marker, another key, or a file gone or resized."""
        folder = self.result(stage, key)
        try:
            marker = read_json(_marker_path(folder), schema=SCHEMA)
        except ArtefactError:
            return None
        whole = marker.get("key") == key and folder.is_dir() and isinstance(marker.get("files"), dict)
        if not whole or not marker["files"].items() <= _sizes(folder).items():
            return None
        return marker

    def accepted(self, stage: str, key: str, *, code_free_key: str | None) -> dict[str, Any] | None:
        """Return the marker of the newest whole result that stands for the one of this key, if that is not there.

        Args:
            stage: its name.
            key: what the present code gives. A result stands for it where its marker says so, see `accept`.
            code_free_key: a result with this one stands for it too; None: no other does.
        """
        if self.marker(stage, key):
            return None
        for path in sorted(self.folder.glob(f"{stage}-*.json"), key=lambda path: -path.stat().st_mtime_ns):
            found = self._marker_at(path, stage)
            accepted = [] if found is None else [entry["key"] for entry in found.get("accepted", [])]
            if found and (key in accepted or (code_free_key and found.get("code_free_key") == code_free_key)):
                return found
        return None

    def _marker_at(self, path: Path, stage: str) -> dict[str, Any] | None:
        try:
            found = read_json(path, schema=SCHEMA)
        except ArtefactError:
            return None
        return self.marker(stage, str(found.get("key"))) if found.get("stage") == stage else None

    def accept(self, marker: dict[str, Any], *, key: str, code: str) -> None:
        """Write into a result's marker that it stands for the one of this key, which the code version `code` gives."""
        entry = {"key": key, "code_version": code}
        if entry not in marker.get("accepted", []):
            accepted = [*marker.get("accepted", []), entry]
            write_json(_marker_path(self.result(marker["stage"], marker["key"])), marker | {"accepted": accepted})

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out of this store while the block runs.

        Raises:
            InputError: another run is at work in it.
        """
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        refusal = (
            f"only one run at a time should use {self.folder}, another is at work there: "
            "wait for it to end or choose another folder with --out"
        )
        with locked(self.folder / ".lock", refusal=refusal):
            yield

    def scratch(self, stage: str, key: str) -> Path:
        """Return the folder, made if need be, that outlives a killed run of this stage."""
        path = _hidden(self.result(stage, key), "scratch")
        with storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        return path

    @contextlib.contextmanager
    def partial(self, stage: str, key: str) -> Iterator[Path]:
        """Yield an empty hidden folder to write into; it is deleted at the end unless `commit` has renamed it."""
        path = _hidden(self.result(stage, key), "partial")
        with storage_errors(path):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def commit(self, partial: Path, marker: dict[str, Any]) -> Path:
        """Rename a partial folder to its final name, then write its marker; delete the stage's scratch."""
        folder = self.result(marker["stage"], marker["key"])
        with storage_errors(folder):
            sync_folder(partial)
            self.delete(folder)
            partial.rename(folder)
            write_json(_marker_path(folder), {"schema": SCHEMA, **marker, "files": _sizes(folder)})
        shutil.rmtree(_hidden(folder, "scratch"), ignore_errors=True)
        return folder

    def delete(self, folder: Path) -> None:
        """Delete a result: its marker first, so that half a result is never taken for a whole one."""
        _marker_path(folder).unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)

    def delete_leftovers(self) -> None:
        """Delete what killed runs left half written or without a marker; their scratch stays."""
        for path in self.folder.glob(".*.partial"):
            shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.iterdir():
            if _RESULT_NAME.fullmatch(path.name) and path.is_dir() and not _marker_path(path).exists():
                shutil.rmtree(path, ignore_errors=True)

    def dual_use_results(self) -> list[Path]:
        """Return the results, of this run and of earlier ones, whose markers say that they are dual-use."""
        results = [path for path in sorted(self.folder.glob("*")) if _RESULT_NAME.fullmatch(path.name)]
        return [
            path for path in results if _marker_path(path).is_file() and read_json(_marker_path(path)).get("dual_use")
        ]

    def delete_scratch(self) -> None:
        """Delete what killed runs kept to resume from."""
        for path in self.folder.glob(".*.scratch"):
            shutil.rmtree(path, ignore_errors=True)

    def require_free(self, n_bytes: int | None, *, stage: str) -> None:
        """Raise StorageError unless the disk has `n_bytes` free."""
        free = shutil.disk_usage(self.folder).free
        if n_bytes is not None and free < n_bytes:
            raise StorageError(
                f"stage {stage} should have about {say_bytes(n_bytes)} of disk, {say_bytes(free)} are free at "
                f"{self.folder}: free space or choose another folder with --out"
            )


def link_result(link: Path, folder: Path) -> None:
    """Point `link` at a result by a relative path, in one step.

    Raises:
        InputError: something that is not a link stands there.
    """
    require_link_or_nothing(link)
    with storage_errors(link):
        link.parent.mkdir(parents=True, exist_ok=True)
        aside = link.with_name(f".{link.name}.{os.getpid()}.link")
        aside.unlink(missing_ok=True)
        aside.symlink_to(os.path.relpath(folder.resolve(), link.parent.resolve()), target_is_directory=True)
        aside.replace(link)


def require_link_or_nothing(link: Path) -> None:
    """Raise InputError where something of the user's would be overwritten by a link to a result."""
    if link.exists() and not link.is_symlink():
        raise InputError(
            f"{link} should be free for a link to a result, found something else: move it or choose another --out"
        )


def _hidden(folder: Path, kind: str) -> Path:
    return folder.with_name(f".{folder.name}.{kind}")


def _marker_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _sizes(folder: Path) -> dict[str, int]:
    """Return the size of every file by its path in the folder."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()
    }
