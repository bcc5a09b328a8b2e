"""JSONL files that grow row by row and outlive a killed writer (torch-free)."""

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .files import read_jsonl, storage_errors


class AppendedRows:
    """A JSONL file that the threads of one process append rows to; an earlier process may have begun it.

    A row that `append` has returned from outlives the process (a power cut may take the last ones). Opening cuts off a
    last line that a killed process left half written.

    Args:
        path: the file, in a folder that is there; made with the first row.

    Attributes:
        path: the file.
        rows: the rows that were in it when it was opened.

    Raises:
        InputError: a whole line is no JSON object (names the line).

    Example:
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
            StorageError: the disk is full or refuses.
        """
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        with self._lock, storage_errors(self.path), self.path.open("ab") as stream:
            stream.write(line)


def cut_torn_line(path: Path) -> int:
    """Cut off a last line that does not end, as a killed writer leaves it; return the bytes that stay, 0 of no file."""
    if not path.is_file():
        return 0
    text = path.read_bytes()
    whole = text.rfind(b"\n") + 1
    if whole < len(text):
        with storage_errors(path), path.open("r+b") as stream:
            stream.truncate(whole)
    return whole
