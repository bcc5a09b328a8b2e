"""Errors of the operating system when it writes, as one error with one line."""

import contextlib
import errno
import re
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from .errors import StorageError


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn write errors of the operating system into a StorageError with a one-line message."""
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
    except SafetensorError as error:  # the library reports the system's error number in the text only
        if not re.search(rf"os error ({errno.ENOSPC}|{errno.EDQUOT})\b", str(error)):
            raise
        raise StorageError(f"could not write {path}: no space left; free space or choose another folder") from error
