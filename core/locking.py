"""One process at a time, on every system (torch-free)."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import InputError
from .files import storage_errors


@contextlib.contextmanager
def locked(file: Path, *, refusal: str | None = None) -> Iterator[None]:
    """Hold a lock file, which is deleted at the end; the system releases it when the process ends, however it ends.

    Args:
        file: the lock file, in a folder that is there.
        refusal: the message where another process holds it; None waits until it is released.

    Raises:
        InputError: another process holds it, and `refusal` is given.
        StorageError: the lock file cannot be written.
    """
    lock = FileLock(file)
    with storage_errors(file):
        try:
            lock.acquire(timeout=-1 if refusal is None else 0)
        except Timeout:
            raise InputError(str(refusal)) from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows deletes no open file: filelock does it after closing
            file.unlink()
        lock.release()
