"""A lock file that admits one process at a time, on every operating system (torch-free)."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import InputError
from .storage_errors import storage_errors


@contextlib.contextmanager
def locked(file: Path, *, refusal: str | None = None) -> Iterator[None]:
    """Hold a lock file for the `with` block and delete it afterwards; a crash of the process releases it too.

    Args:
        file: path of the lock file, in an existing folder.
        refusal: error message if another process holds the lock; None waits until the lock is free.

    Raises:
        InputError: another process holds the lock, and `refusal` is given.
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
        with contextlib.suppress(OSError):  # Windows cannot delete an open file: filelock deletes it after closing
            file.unlink()
        lock.release()
