"""A folder written aside that outlives a killed process, and files cloned instead of copied."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from .files import delete_asides, publish, require_new, storage_errors
from .locking import locked

KEY_DIGITS = 16
FICLONE = 0x40049409  # share the blocks of a file, copied on write (ioctl_ficlone(2))


@contextlib.contextmanager
def resumable_folder(out: Path, *, key: str, sync: bool = True) -> Iterator[Path]:
    """Yield a folder beside `out` like `new_folder`, but one that a killed process leaves for the next with this key.

    What is there already may be half written: the caller keeps account of it. Folders that killed processes left for
    the same `out` under other keys are deleted.

    Args:
        out: the folder to be.
        key: hex text that stands for what is written: equal keys, equal bytes.
        sync: flush to disk before the folder gets its name; without, a power cut may leave it broken.

    Raises:
        InputError: `out` exists already and is not an empty folder, or another process is writing it.
    """
    require_new(out)
    aside = out.parent / f".{out.name}.{key[:KEY_DIGITS]}.partial"
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    refusal = f"{out} should be written by one process at a time: another one is at it"
    with locked(out.with_name(f".{out.name}.lock"), refusal=refusal):
        try:
            with storage_errors(out):
                _delete_other_keys(aside, out)
                aside.mkdir(exist_ok=True)
                delete_asides(aside)
                yield aside
                publish(aside, out, sync=sync)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise


def clone_or_copy(source: Path, destination: Path) -> None:
    """Write a file's bytes to a new file: shared blocks where the file system can, else copied inside the kernel."""
    with storage_errors(destination):
        try:
            import fcntl  # Windows has none

            with source.open("rb") as old, destination.open("wb") as new:
                fcntl.ioctl(new.fileno(), FICLONE, old.fileno())
        except (ImportError, OSError):
            shutil.copyfile(source, destination)


def left_over_bytes(out: Path) -> int:
    """Return the bytes on disk that killed processes left for `out`, which the next one takes up or deletes."""
    files = (path for folder in _left_over(out) for path in folder.rglob("*"))
    return sum(_bytes_on_disk(path.stat()) for path in files)


def _bytes_on_disk(status: os.stat_result) -> int:
    blocks: int | None = getattr(status, "st_blocks", None)  # Windows counts none
    return status.st_size if blocks is None else 512 * blocks


def _delete_other_keys(aside: Path, out: Path) -> None:
    for folder in _left_over(out):
        if folder != aside:
            shutil.rmtree(folder, ignore_errors=True)


def _left_over(out: Path) -> list[Path]:
    named = re.compile(re.escape(f".{out.name}.") + rf"[0-9a-f]{{{KEY_DIGITS}}}\.partial")
    beside = out.parent.iterdir() if out.parent.is_dir() else ()
    return [path for path in beside if named.fullmatch(path.name) and path.is_dir()]
