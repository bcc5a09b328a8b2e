"""The store of stage results: a result is either complete, with a marker, or absent (torch-free).

    STORE/gate-1f0c9a55b2d7/           the artefact of one stage, exactly as the stage wrote it
    STORE/gate-1f0c9a55b2d7.json       its marker, written last; a folder without a valid marker is ignored
    STORE/.gate-1f0c9a55b2d7.partial/  the artefact of a running stage; if the run is killed, the next one deletes it
    STORE/.gate-1f0c9a55b2d7.scratch/  files that a stage resumes from; deleted when the stage succeeds

The marker is beside the folder, so that the folder has only the files of the artefact. It lists the BLAKE3 of each
file, and a result is reused only if it has exactly these files with these digests: one that was changed, by whatever
means, is computed again. Every run hashes each file once; in the same run it is hashed again only if its inode, size,
mtime or ctime has changed. (A writer can set the mtime back, but not the ctime.) Digests are never kept for later runs.
A store is not signed: somebody who can write its markers too can pass anything off as a result.
"""

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prosocial.core.errors import ArtefactError, InputError, StorageError
from prosocial.core.files import blake3_file, read_json, storage_errors, sync_folder, write_json
from prosocial.core.locking import locked

from .resources import say_bytes

SCHEMA = "prosocial.stage/1"
KEY_LETTERS = 12
CLOCK_STEP_NS = 2_000_000_000  # of the coarsest file system: a file that changed this recently may change unnoticed
_RESULT_NAME = re.compile(rf"[a-z][a-z0-9-]*-[0-9a-f]{{{KEY_LETTERS}}}")


class Store:
    """A folder of stage results.

    Args:
        folder: folder of the results; created when the first stage runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._digests: dict[tuple[int, ...], str] = {}

    def result(self, stage: str, key: str) -> Path:
        """Return the folder of the artefact of a stage with this key, whether or not it exists."""
        return self.folder / f"{stage}-{key[:KEY_LETTERS]}"

    def marker(self, stage: str, key: str) -> dict[str, Any] | None:
        """Return the marker of a complete result; None without a marker of this key, or if a file was changed."""
        marker = self._marker_of(stage, key)
        return None if marker is None or self.changed_files(stage, key) else marker

    def changed_files(self, stage: str, key: str) -> list[str]:
        """Return the files of a result that were changed, removed or added after the stage wrote them."""
        marker, folder = self._marker_of(stage, key), self.result(stage, key)
        if marker is None:
            return []
        expected, actual = marker["files"], self._files(folder)
        return sorted(name for name in {*expected, *actual} if expected.get(name) != actual.get(name))

    def _marker_of(self, stage: str, key: str) -> dict[str, Any] | None:
        folder = self.result(stage, key)
        try:
            marker = read_json(_marker_path(folder), schema=SCHEMA)
        except ArtefactError:
            return None
        kinds = {"files": dict, "summary": str, "seconds": int | float}
        is_valid = all(isinstance(marker.get(name), kind) for name, kind in kinds.items())
        is_valid = is_valid and isinstance(marker.get("accepted", []), list)
        return marker if is_valid and marker.get("key") == key and folder.is_dir() else None

    def _files(self, folder: Path) -> dict[str, str]:
        """Return the BLAKE3 of every file by its path in the folder."""
        paths = [path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir()]
        return {path.relative_to(folder).as_posix(): self._digest(path) for path in paths}

    def _digest(self, path: Path) -> str:
        if not path.is_file():  # a link to a folder, a pipe
            return "not a file"
        now, status = time.time_ns(), path.stat()
        identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if identity in self._digests:
            return self._digests[identity]
        digest = blake3_file(path)
        if now - status.st_ctime_ns > CLOCK_STEP_NS:
            self._digests[identity] = digest
        return digest

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
            accepted = [] if marker is None else marker.get("accepted", [])
            is_accepted = any(isinstance(entry, dict) and entry.get("key") == key for entry in accepted)
            if marker and (is_accepted or (code_free_key and marker.get("code_free_key") == code_free_key)):
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
            write_json(_marker_path(folder), {"schema": SCHEMA, **marker, "files": self._files(folder)})
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

    def set_aside(self, current: Mapping[str, str]) -> tuple[int, int]:
        """Return the number and the bytes of the scratch folders of unfinished stages that have other keys.

        Args:
            current: key by the name of each stage of the run.
        """
        own = {_hidden(self.result(stage, key), "scratch") for stage, key in current.items()}
        others = [path for path in self.folder.glob(".*.scratch") if path not in own]
        files = [path for folder in others for path in folder.rglob("*") if path.is_file()]
        return len(others), sum(path.stat().st_size for path in files)

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
