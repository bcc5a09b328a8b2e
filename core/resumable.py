"""An output folder whose unfinished work survives a crash and is resumed, and copy-on-write clones of files."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from .files import alone, delete_asides, publish, require_new, storage_errors

KEY_DIGITS = 16
FICLONE = 0x40049409  # makes a file share the blocks of another one, copied on write (ioctl_ficlone(2))


@contextlib.contextmanager
def resumable_folder(out: Path, *, key: str, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to `out` on success; a killed process leaves it for the next one.

    The next call with the same key gets the folder with the files in it, some of which may be incomplete: the caller
    has to keep track of what is complete. Folders that killed processes left for `out` under other keys are deleted. An
    exception deletes the folder, as in `new_folder`.

    Args:
        out: path of the finished folder.
        key: hex text that identifies the content to be written: equal keys must mean equal bytes.
        sync: flush all files to disk before the folder is renamed; without it a power cut can leave `out` broken.

    Raises:
        InputError: `out` exists already and is not an empty folder, or another process is writing it.
        StorageError: the disk is full, or writing is not permitted.
    """
    require_new(out)
    aside = out.parent / f".{out.name}.{key[:KEY_DIGITS]}.partial"
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with alone(out):
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
    """Copy a file, as a copy-on-write clone if the file system supports it.

    Raises:
        StorageError: the disk is full, or writing is not permitted.
    """
    with storage_errors(destination):
        try:
            import fcntl  # not available on Windows

            with source.open("rb") as old, destination.open("wb") as new:
                fcntl.ioctl(new.fileno(), FICLONE, old.fileno())
        except (ImportError, OSError):
            shutil.copyfile(source, destination)


def left_over_bytes(out: Path) -> int:
    """Return the bytes on disk of the unfinished folders that killed processes left for `out`."""
    files = (path for folder in _left_over(out) for path in folder.rglob("*"))
    return sum(_bytes_on_disk(path.stat()) for path in files)


def _bytes_on_disk(status: os.stat_result) -> int:
    blocks: int | None = getattr(status, "st_blocks", None)  # not available on Windows
    return status.st_size if blocks is None else 512 * blocks


def _delete_other_keys(aside: Path, out: Path) -> None:
    for folder in _left_over(out):
        if folder != aside:
            shutil.rmtree(folder, ignore_errors=True)


def _left_over(out: Path) -> list[Path]:
    named = re.compile(re.escape(f".{out.name}.") + rf"[0-9a-f]{{{KEY_DIGITS}}}\.partial")
    beside = out.parent.iterdir() if out.parent.is_dir() else ()
    return [path for path in beside if named.fullmatch(path.name) and path.is_dir()]
