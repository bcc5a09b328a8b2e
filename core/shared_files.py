"""Open files that several threads read and write at any place, on every system (torch-free)."""

import os
import threading

_MOVES = threading.Lock()  # of the one position that a descriptor has where nothing reads or writes without it


def read_at(file: int, buffer: memoryview, at: int) -> int:
    """Fill the front of a buffer from a place in a file, and return the number of bytes: 0 at its end."""
    if hasattr(os, "preadv"):
        return os.preadv(file, [buffer], at)
    with _MOVES:
        os.lseek(file, at, os.SEEK_SET)
        data = os.read(file, len(buffer))
    buffer[: len(data)] = data
    return len(data)


def write_at(file: int, data: memoryview, at: int) -> None:
    """Write bytes at a place in a file."""
    done = 0
    while done < len(data):
        if hasattr(os, "pwrite"):
            done += os.pwrite(file, data[done:], at + done)
        else:
            with _MOVES:
                os.lseek(file, at + done, os.SEEK_SET)
                done += os.write(file, data[done:])


def reserve(file: int, size_bytes: int) -> None:
    """Give a file its size; where the system can, also the room on disk, so that a full disk is noticed at once."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size_bytes)
    else:
        os.ftruncate(file, size_bytes)
