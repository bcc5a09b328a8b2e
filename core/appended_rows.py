"""JSONL files that are appended to row by row and stay readable after a crash (torch-free)."""

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .files import read_jsonl, storage_errors


class AppendedRows:
    """A JSONL file that the threads of one process append rows to; an earlier process may have started it.

    Once `append` has returned, its row survives a crash of the process (a power cut may still lose the last rows).
    Opening the file removes an incomplete last line, which a killed process leaves behind.

    Args:
        path: path of the file, in an existing folder; the first `append` creates the file.

    Attributes:
        path: path of the file.
        rows: rows that were in the file when it was opened.

    Raises:
        InputError: a complete line is not a JSON object (the message names the line).

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     AppendedRows(Path(folder) / "rows.jsonl").append({"seed": 1})
        ...     AppendedRows(Path(folder) / "rows.jsonl").rows
        [{'seed': 1}]
    """

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, threading.Lock()
        self.rows: list[dict[str, Any]] = read_jsonl(path) if cut_torn_line(path) else []

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row at the end of the file.

        Raises:
            StorageError: the disk is full, or writing is not permitted.
        """
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        with self._lock, storage_errors(self.path), self.path.open("ab") as stream:
            stream.write(line)


def cut_torn_line(path: Path) -> int:
    """Remove an incomplete last line; return the number of bytes that remain, 0 if there is no file."""
    if not path.is_file():
        return 0
    text = path.read_bytes()
    whole = text.rfind(b"\n") + 1
    if whole < len(text):
        with storage_errors(path), path.open("r+b") as stream:
            stream.truncate(whole)
    return whole
