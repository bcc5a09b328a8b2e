"""The store of stage results: a result is either complete, with a marker, or absent (torch-free).

    STORE/gate-1f0c9a55b2d7/           the artefact of one stage, exactly as the stage wrote it
    STORE/gate-1f0c9a55b2d7.json       its marker, written last; a folder without a valid marker is ignored
    STORE/.gate-1f0c9a55b2d7.partial/  the artefact of a running stage; if the run is killed, the next one deletes it
    STORE/.gate-1f0c9a55b2d7.scratch/  files that a stage resumes from; deleted when the stage succeeds

The marker is beside the folder, so that the folder has only the files of the artefact.
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
        folder: folder of the results; created when the first stage runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def result(self, stage: str, key: str) -> Path:
        """Return the folder of the artefact of a stage with this key, whether or not it exists."""
        return self.folder / f"{stage}-{key[:KEY_LETTERS]}"

    def marker(self, stage: str, key: str) -> dict[str, Any] | None:
        """Return the marker of a complete result; None without a marker of this key, or if a file's size differs."""
        folder = self.result(stage, key)
        try:
            marker = read_json(_marker_path(folder), schema=SCHEMA)
        except ArtefactError:
            return None
        is_valid = marker.get("key") == key and folder.is_dir() and isinstance(marker.get("files"), dict)
        if not is_valid or not marker["files"].items() <= _sizes(folder).items():
            return None
        return marker

    def accepted(self, stage: str, key: str, *, code_free_key: str | None) -> dict[str, Any] | None:
        """Return the marker of the newest complete result that is accepted in place of the one with this key.

        Args:
            stage: name of the stage.
            key: key under the current code; results whose marker lists it are accepted, see `accept`.
            code_free_key: results with this code-free key are accepted too; None for no others.

        Returns:
            The marker; None if the result with this key exists or none is accepted.
        """
        if self.marker(stage, key):
            return None
        for path in sorted(self.folder.glob(f"{stage}-*.json"), key=lambda path: -path.stat().st_mtime_ns):
            marker = self._marker_at(path, stage)
            accepted = [] if marker is None else [entry["key"] for entry in marker.get("accepted", [])]
            if marker and (key in accepted or (code_free_key and marker.get("code_free_key") == code_free_key)):
                return marker
        return None

    def _marker_at(self, path: Path, stage: str) -> dict[str, Any] | None:
        try:
            marker = read_json(path, schema=SCHEMA)
        except ArtefactError:
            return None
        return self.marker(stage, str(marker.get("key"))) if marker.get("stage") == stage else None

    def accept(self, marker: dict[str, Any], *, key: str, code: str) -> None:
        """Record in a result's marker that it is accepted in place of the one with this key and code version."""
        entry = {"key": key, "code_version": code}
        if entry not in marker.get("accepted", []):
            accepted = [*marker.get("accepted", []), entry]
            write_json(_marker_path(self.result(marker["stage"], marker["key"])), marker | {"accepted": accepted})

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the store against other runs while the block runs.

        Raises:
            InputError: another run holds the lock.
        """
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        refusal = (
            f"only one run at a time should use {self.folder}, another run is using it: wait for it to end or choose "
            "another folder with --out"
        )
        with locked(self.folder / ".lock", refusal=refusal):
            yield

    def scratch(self, stage: str, key: str) -> Path:
        """Return the stage's scratch folder, which survives a killed run; it is created if missing."""
        path = _hidden(self.result(stage, key), "scratch")
        with storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        return path

    @contextlib.contextmanager
    def partial(self, stage: str, key: str) -> Iterator[Path]:
        """Yield an empty hidden folder to write into; it is deleted at the end unless `commit` renamed it."""
        path = _hidden(self.result(stage, key), "partial")
        with storage_errors(path):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def commit(self, partial: Path, marker: dict[str, Any]) -> Path:
        """Rename a partial folder to its final name, write its marker, and delete the stage's scratch folder."""
        folder = self.result(marker["stage"], marker["key"])
        with storage_errors(folder):
            sync_folder(partial)
            self.delete(folder)
            partial.rename(folder)
            write_json(_marker_path(folder), {"schema": SCHEMA, **marker, "files": _sizes(folder)})
        shutil.rmtree(_hidden(folder, "scratch"), ignore_errors=True)
        return folder

    def delete(self, folder: Path) -> None:
        """Delete a result, its marker first, so that an incomplete result never has a marker."""
        _marker_path(folder).unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)

    def delete_leftovers(self) -> None:
        """Delete the partial folders and results without a marker of killed runs; scratch folders are kept."""
        for path in self.folder.glob(".*.partial"):
            shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.iterdir():
            if _RESULT_NAME.fullmatch(path.name) and path.is_dir() and not _marker_path(path).exists():
                shutil.rmtree(path, ignore_errors=True)

    def dual_use_results(self) -> list[Path]:
        """Return the folders of all results, also of earlier runs, that are marked as dual-use."""
        results = [path for path in sorted(self.folder.glob("*")) if _RESULT_NAME.fullmatch(path.name)]
        return [
            path for path in results if _marker_path(path).is_file() and read_json(_marker_path(path)).get("dual_use")
        ]

    def delete_scratch(self) -> None:
        """Delete the scratch folders of killed runs."""
        for path in self.folder.glob(".*.scratch"):
            shutil.rmtree(path, ignore_errors=True)

    def require_free(self, n_bytes: int | None, *, stage: str) -> None:
        """Raise StorageError unless the disk has `n_bytes` of free space."""
        free = shutil.disk_usage(self.folder).free
        if n_bytes is not None and free < n_bytes:
            raise StorageError(
                f"stage {stage} needs about {say_bytes(n_bytes)} of disk space, {say_bytes(free)} are free at "
                f"{self.folder}: free some space or choose another folder with --out"
            )


def link_result(link: Path, folder: Path) -> None:
    """Point `link` at a result by a relative path, atomically.

    Raises:
        InputError: a file or folder that is not a link has this path.
    """
    require_link_or_nothing(link)
    with storage_errors(link):
        link.parent.mkdir(parents=True, exist_ok=True)
        aside = link.with_name(f".{link.name}.{os.getpid()}.link")
        aside.unlink(missing_ok=True)
        aside.symlink_to(os.path.relpath(folder.resolve(), link.parent.resolve()), target_is_directory=True)
        aside.replace(link)


def require_link_or_nothing(link: Path) -> None:
    """Raise InputError if a link to a result would overwrite a file or folder of the user."""
    if link.exists() and not link.is_symlink():
        raise InputError(
            f"{link} should be free for a link to a result, found another file or folder: move it or choose another "
            "--out"
        )


def _hidden(folder: Path, kind: str) -> Path:
    return folder.with_name(f".{folder.name}.{kind}")


def _marker_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _sizes(folder: Path) -> dict[str, int]:
    """Return the size of every file in bytes, by its path in the folder."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()
    }
