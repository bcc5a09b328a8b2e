"""Reading and writing at any position of a file from several threads, on every operating system (torch-free)."""

import os
import threading

_MOVES = threading.Lock()  # guards seek + read or write on systems without preadv and pwrite


def read_at(file: int, buffer: memoryview, at: int) -> int:
    """Read bytes at an offset of an open file into a buffer; return how many were read, 0 at the end of the file.

    Args:
        file: file descriptor.
        buffer: receives the bytes from its start on; it may be filled only in part.
        at: offset in the file in bytes.
    """
    if hasattr(os, "preadv"):
        return os.preadv(file, [buffer], at)
    with _MOVES:
        os.lseek(file, at, os.SEEK_SET)
        data = os.read(file, len(buffer))
    buffer[: len(data)] = data
    return len(data)


def write_at(file: int, data: memoryview, at: int) -> None:
    """Write all bytes of `data` at an offset of an open file.

    Args:
        file: file descriptor.
        data: the bytes.
        at: offset in the file in bytes.
    """
    done = 0
    while done < len(data):
        if hasattr(os, "pwrite"):
            done += os.pwrite(file, data[done:], at + done)
        else:
            with _MOVES:
                os.lseek(file, at + done, os.SEEK_SET)
                done += os.write(file, data[done:])


def reserve(file: int, size_bytes: int) -> None:
    """Set the size of an open file; if the system can, allocate the disk space too, so that a full disk fails here."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size_bytes)
    else:
        os.ftruncate(file, size_bytes)
