"""A folder written aside that outlives a killed process, and files cloned instead of copied (Linux, macOS)."""

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from .errors import InputError
from .files import delete_asides, publish, require_new, storage_errors

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
        aside.mkdir(parents=True, exist_ok=True)
    with _locked(aside, out):
        _delete_other_keys(aside, out)
        try:
            with storage_errors(out):
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
            with source.open("rb") as old, destination.open("wb") as new:
                fcntl.ioctl(new.fileno(), FICLONE, old.fileno())
        except OSError:
            shutil.copyfile(source, destination)


@contextlib.contextmanager
def _locked(folder: Path, out: Path) -> Iterator[None]:
    """Hold a folder's lock, which the system lets go when the process ends, however it ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not folder.exists() or not os.path.samestat(os.fstat(descriptor), folder.stat()):
            raise BlockingIOError  # its writer has just finished or given up
        yield
    except BlockingIOError:
        raise InputError(f"{out} should be written by one process at a time: another one is at it") from None
    finally:
        os.close(descriptor)


def left_over_bytes(out: Path) -> int:
    """Return the bytes on disk that killed processes left for `out`, which the next one takes up or deletes."""
    files = (path for folder in _left_over(out) for path in folder.rglob("*"))
    return sum(512 * path.stat().st_blocks for path in files)


def _delete_other_keys(aside: Path, out: Path) -> None:
    for folder in _left_over(out):
        if folder != aside:
            with contextlib.suppress(InputError), _locked(folder, out):
                shutil.rmtree(folder, ignore_errors=True)


def _left_over(out: Path) -> list[Path]:
    named = re.compile(re.escape(f".{out.name}.") + rf"[0-9a-f]{{{KEY_DIGITS}}}\.partial")
    beside = out.parent.iterdir() if out.parent.is_dir() else ()
    return [path for path in beside if named.fullmatch(path.name) and path.is_dir()]
