"""Files that are whole or not there: digests, JSON with a schema version, folders written aside and renamed."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from blake3 import blake3
from safetensors import SafetensorError

from .errors import ArtefactError, InputError, StorageError

CHUNK_BYTES = 1 << 20
ASIDE_SUFFIX = ".tmp"  # of what is written before it gets its name


def sha256_file(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes, as `sha256sum` and the Hub know it."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def blake3_file(path: Path) -> str:
    """Return the hex BLAKE3 of a file's bytes, for weights: about ten times as fast as SHA-256, on all cores."""
    digest: str = blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()
    return digest


def canonical_json(value: object) -> str:
    """Return JSON with sorted keys and no spaces: equal values give equal text, so that it can be hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON, aside first, then renamed over `path`."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with written_aside(path) as aside, aside.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` for a new file; on success it is renamed over `path`, else deleted.

    The file must be closed at the end of the block.

    Raises:
        StorageError: not enough room, or no permission.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}{ASIDE_SUFFIX}")
    with storage_errors(path):
        try:
            yield aside
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


def delete_asides(folder: Path) -> None:
    """Delete what killed processes left of `written_aside` in a folder that nobody else writes to."""
    for path in folder.glob(f".*{ASIDE_SUFFIX}"):
        path.unlink()


def read_json(path: Path, *, schema: str | None = None) -> dict[str, Any]:
    """Read a JSON object; with `schema`, its `schema` key must be exactly that (e.g. `prosocial.gate/1`).

    Raises:
        ArtefactError: the file is missing, is not a JSON object, or carries another schema.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtefactError(f"expected a file at {path}: there is none") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtefactError(f"{path} should hold JSON: {error}; download or save it again") from None
    if not isinstance(value, dict):
        raise ArtefactError(
            f"{path} should hold a JSON object, found {type(value).__name__}; download or save it again"
        )
    if schema is not None and value.get("schema") != schema:
        raise ArtefactError(f"{path} should carry schema {schema!r}, found {value.get('schema')!r}")
    return value


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object per line.

    Raises:
        InputError: the file is missing or empty, or a line is not a JSON object (names the line).
    """
    if not path.is_file():
        raise InputError(f"expected a JSONL file at {path}: there is none")
    rows: list[dict[str, Any]] = []
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} should be UTF-8 text: {error}") from None
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path} line {number} should be a JSON object: {error}") from None
        if not isinstance(row, dict):
            raise InputError(f"{path} line {number} should be a JSON object, found {type(row).__name__}")
        rows.append(row)
    if not rows:
        raise InputError(f"{path} holds no rows: at least one is needed")
    return rows


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line."""
    with storage_errors(path), path.open("w", encoding="utf-8", newline="\n") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into one clear line."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StorageError) or error.errno not in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EACCES,
            errno.EPERM,
            errno.EROFS,
            errno.EFBIG,
        ):
            raise
        raise StorageError(f"could not write {path}: {error.strerror}; free space or choose another folder") from error
    except SafetensorError as error:  # names the system's error in its text only
        if not re.search(rf"os error ({errno.ENOSPC}|{errno.EDQUOT})\b", str(error)):
            raise
        raise StorageError(f"could not write {path}: no space left; free space or choose another folder") from error


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder beside `out` to write into; on success it is synced and renamed to `out`, else deleted.

    Raises:
        InputError: `out` exists already and is not an empty folder.
    """
    require_new(out)
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    try:
        with storage_errors(out):
            yield aside
            publish(aside, out)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def require_new(out: Path) -> None:
    """Raise InputError if `out` exists already and is not an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} should not exist yet or be empty: choose another folder or delete it first")


def publish(aside: Path, out: Path, *, sync: bool = True) -> None:
    """Sync a folder written aside and rename it to `out`."""
    if sync:
        sync_folder(aside)
    if out.is_dir():
        out.rmdir()
    aside.chmod(0o755)
    aside.rename(out)
    _sync(out.parent)


def require_outside(out: Path, inputs: Iterable[Path]) -> None:
    """Check that a new folder would not become part of a folder that it is made from.

    Raises:
        InputError: it lies in one of `inputs`, or is one of them.
    """
    for folder in inputs:
        if out.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{out} should lie outside of what it is made from, found it in {folder}: choose another")


def sync_folder(folder: Path) -> None:
    """Flush every file of a folder, and the folder itself, to disk."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    """Flush a file or a folder to disk; Windows flushes neither folders nor what may not be written."""
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
    """Hard-link a file, or copy it where links are not possible (another file system)."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), destination)
    except OSError:
        with storage_errors(destination):
            shutil.copy2(source, destination)


def require_keys(row: Mapping[str, Any], keys: tuple[str, ...], *, where: str) -> None:
    """Raise InputError unless every key is in the row."""
    missing = [key for key in keys if key not in row]
    if missing:
        raise InputError(f"{where} should have the keys {', '.join(keys)}: missing {', '.join(missing)}")
