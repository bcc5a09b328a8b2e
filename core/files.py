"""Atomic writing of files and folders (written under a temporary name, then renamed), digests, and versioned JSON."""

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from blake3 import blake3

from .errors import ArtefactError, InputError
from .json_text import parse_object, parse_rows
from .locking import locked
from .storage_errors import storage_errors as storage_errors

CHUNK_BYTES = 1 << 20
ASIDE_SUFFIX = ".tmp"  # of temporary files, which are renamed when they are complete


def sha256_file(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes, as `sha256sum` and the Hub report it."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def blake3_file(path: Path) -> str:
    """Return the hex BLAKE3 of a file's bytes; on all cores it is about ten times as fast as SHA-256."""
    digest: str = blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()
    return digest


def canonical_json(value: object) -> str:
    """Return JSON with sorted keys and no spaces, for hashing: equal values give equal text.

    Examples:
        >>> canonical_json({"b": 1, "a": [2, 3]})
        '{"a":[2,3],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON to a temporary file, then rename it to `path`.

    Raises:
        StorageError: the disk is full, or writing is not permitted.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text to a temporary file, then rename it to `path`.

    Raises:
        StorageError: the disk is full, or writing is not permitted.
    """
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="\n")


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; on success it is flushed to disk and renamed, otherwise deleted.

    The caller must close the file before the end of the `with` block.

    Raises:
        StorageError: the disk is full, or writing is not permitted.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}{ASIDE_SUFFIX}")
    with storage_errors(path):
        try:
            yield aside
            sync_path(aside)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


def delete_asides(folder: Path, name: str = "") -> None:
    """Delete the temporary files that killed processes left for a file, or for all files of a folder.

    Only for files that no other process writes.
    """
    for path in folder.glob(f".{glob.escape(name) or '*'}.*{ASIDE_SUFFIX}"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def written_alone(path: Path) -> Iterator[Path]:
    """As `written_aside`, for one process at a time; what killed processes left for `path` is deleted first.

    Raises:
        InputError: another process is writing it.
        StorageError: the disk is full, or writing is not permitted.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path):
        delete_asides(path.parent, path.name)
        with written_aside(path) as aside:
            yield aside


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield the path of a new file while no other process writes it; write it by `write_json` or `write_text`.

    Raises:
        InputError: there is a file already, or another process is writing it.
        StorageError: the disk is full, or writing is not permitted.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path):
        if path.exists():
            raise InputError(f"{path} should not exist yet: choose another path or delete it first")
        delete_asides(path.parent, path.name)
        yield path


@contextlib.contextmanager
def replacing_report(folder: Path, name: str) -> Iterator[None]:
    """Hold the lock of a report while its files are written, of which the JSON file `name` has to be the last.

    An older JSON file is deleted first, because it would make a killed process look finished. Processes take turns.

    Raises:
        StorageError: the disk is full, or writing is not permitted.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / f".{name}.lock"):
            delete_asides(folder)
            (folder / name).unlink(missing_ok=True)
            yield


def read_json(path: Path, *, schema: str | None = None, finite: bool = True) -> dict[str, Any]:
    """Read a JSON object from a file, strictly: see `prosocial.core.json_text.parse_json` for what is refused.

    Args:
        path: path of the file.
        schema: required value of the object's `schema` key, such as `prosocial.gate/1`; None accepts any.
        finite: False accepts NaN and infinite numbers, as the configs of some models contain.

    Raises:
        ArtefactError: the file is missing or cannot be read, is not a strict JSON object, or has another schema.
    """
    value = parse_object(read_bytes(path), where=str(path), finite=finite)
    if schema is not None and value.get("schema") != schema:
        raise ArtefactError(
            f"{path} should have schema {schema!r}, found {value.get('schema')!r:.80}; give a file of that kind"
        )
    return value


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises:
        ArtefactError: the file is missing, is a folder, or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ArtefactError(f"expected a file at {path}: there is none") from None
    except (OSError, ValueError) as error:  # a ValueError: the path contains a NUL
        reason = getattr(error, "strerror", None) or error
        raise ArtefactError(f"{path} should be a file that can be read: {reason}") from None


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a file with one JSON object per line; empty lines and a byte order mark are skipped.

    Raises:
        InputError: the file is missing, unreadable or empty, or a line is not a JSON object (the message names it).
    """
    return list(read_lines(path).values())


def read_lines(path: Path) -> dict[int, dict[str, Any]]:
    """Return the rows that `read_jsonl` reads, by the number of their line, with the same errors."""
    if not path.is_file():
        raise InputError(f"expected a JSONL file at {path}: there is none")
    rows = parse_rows(read_bytes(path), where=str(path))
    if not rows:
        raise InputError(f"{path} should hold at least one row: it holds none")
    return rows


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line to a temporary file, then rename it to `path`.

    Raises:
        StorageError: the disk is full, or writing is not permitted.
    """
    with written_aside(path) as aside, aside.open("w", encoding="utf-8", newline="\n") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder in the parent of `out`; on success it is renamed to `out`, otherwise deleted.

    What a killed process left for the same `out` is deleted first.

    Raises:
        InputError: `out` exists already and is not an empty folder, or another process is writing it.
        StorageError: the disk is full, or writing is not permitted.
    """
    require_new(out)
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with alone(out):
        _delete_partial_folders(out)
        aside = out.parent / f".{out.name}.{secrets.token_hex(4)}.partial"
        try:
            with storage_errors(out):
                aside.mkdir()
                yield aside
                publish(aside, out)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise


@contextlib.contextmanager
def alone(out: Path) -> Iterator[None]:
    """Hold the lock `.OUT.lock` beside an output while it is written.

    Raises:
        InputError: another process is writing it.
    """
    refusal = f"{out} should be written by one process at a time: another process is writing it; wait until it ends"
    with locked(out.with_name(f".{out.name}.lock"), refusal=refusal):
        yield


def _delete_partial_folders(out: Path) -> None:
    """Delete what killed processes left of `out`; the caller holds its lock."""
    left = re.compile(re.escape(f".{out.name}.") + r"[a-z0-9_]{8}\.partial")
    for path in out.parent.iterdir():
        if left.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def require_new(out: Path) -> None:
    """Check that `out` does not exist yet or is an empty folder.

    Raises:
        InputError: `out` is a file or a folder with content, or a file is in the place of a parent.
        StorageError: the nearest folder that exists does not permit writing.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} should not exist yet or be empty: choose another folder or delete it first")
    require_place(out, is_folder=True)


def require_place(path: Path | None, *, is_folder: bool) -> None:
    """Check before slow work that its result can be written; None is no result.

    Args:
        path: file, or folder with `is_folder`; neither it nor its parents have to exist.
        is_folder: whether the result is a folder of files.

    Raises:
        InputError: something of the other kind is there, or a file is in the place of a parent.
        StorageError: the nearest folder that exists does not permit writing.
    """
    if path is None:
        return
    if path.exists() and path.is_dir() != is_folder:
        raise InputError(
            f"{path} should be a place for a {'folder' if is_folder else 'file'}, it is a "
            f"{'file' if is_folder else 'folder'}: choose another path"
        )
    places = (path, *path.absolute().parents) if is_folder else path.absolute().parents
    nearest = next(place for place in places if place.exists())
    if not nearest.is_dir():
        raise InputError(f"{path} should be a place that can be written, {nearest} is a file: choose another path")
    with storage_errors(path):
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(nearest))


def publish(aside: Path, out: Path, *, sync: bool = True) -> None:
    """Flush a temporary folder to disk (with `sync`) and rename it to `out`.

    Raises:
        InputError: `out` has been written meanwhile.
    """
    if sync:
        sync_folder(aside)
    require_new(out)
    if out.is_dir():  # empty, with permissions that somebody chose
        aside.chmod(out.stat().st_mode & 0o7777)
        out.rmdir()
    aside.rename(out)
    sync_path(out.parent)


def require_outside(out: Path, inputs: Iterable[Path]) -> None:
    """Check that a new folder is not inside one of the folders that it is made from.

    Raises:
        InputError: `out` is one of `inputs` or inside one of them.
    """
    for folder in inputs:
        if out.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{out} should be outside of its input folders, it is inside {folder}: choose another one")


def require_no_links(folder: Path) -> None:
    """Check that a folder contains no symbolic link at any depth, so that no file outside of it is read or written.

    Raises:
        ArtefactError: it contains one (the message names it).
    """
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            name = path.relative_to(folder).as_posix()
            raise ArtefactError(
                f"{folder} should contain regular files, but {name} is a link: copy the folder (cp -rL)"
            )


def sync_folder(folder: Path) -> None:
    """Flush all files of a folder, and the folder itself, to disk."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            sync_path(path)
    sync_path(folder)


def sync_path(path: Path) -> None:
    """Flush a file or a folder to disk; Windows can flush neither folders nor read-only files."""
    is_windows = not hasattr(os, "O_DIRECTORY")
    try:
        descriptor = os.open(path, os.O_RDWR if is_windows else os.O_RDONLY)
    except PermissionError:
        if is_windows:
            return
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link_or_copy(source: Path, destination: Path) -> None:
    """Hard-link a file, or copy it if the destination is on another file system."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), destination)
    except OSError:
        with storage_errors(destination):
            shutil.copy2(source, destination)


def require_keys(row: Mapping[str, Any], keys: tuple[str, ...], *, where: str) -> None:
    """Check that a row has all the given keys.

    Args:
        row: the row.
        keys: the required keys.
        where: file and line of the row, for the message.

    Raises:
        InputError: a key is missing.
    """
    missing = [key for key in keys if key not in row]
    if missing:
        raise InputError(f"{where} should have the keys {', '.join(keys)}: missing {', '.join(missing)}; add them")
