"""Columns of numbers at many positions: memory-mapped files that are filled part by part and survive a killed process.

What is mapped counts as a cache of files, so that the memory a process holds does not grow with the data.
"""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from prosocial.core.files import read_json, storage_errors, sync_path, write_json

Part = TypeVar("Part")
Shapes = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
JOURNAL = "finished.json"
SYNC_SECONDS = 30.0  # a killed process loses at most this much work
WINDOW_BYTES = 1 << 29  # of a mapped column that random access reaches at a time
BLOCK_ROWS = 1024  # next to each other on the disk


@dataclass
class StateFiles:
    """A folder of columns, or columns in memory.

    Attributes:
        folder: where the files are; None keeps the columns in memory.
        columns: the columns by name, after `open`.
    """

    folder: Path | None = None
    columns: dict[str, Tensor] = field(default_factory=dict)

    def open(self, shapes: Shapes, *, key: str) -> dict[str, Tensor]:
        """Return columns; those of an earlier process with the same key keep what it wrote.

        Args:
            shapes: shape, whose first axis are the rows, and dtype of each column by name.
            key: identifies what the columns will hold.

        Raises:
            StorageError: the disk is full, or writing is not permitted.
        """
        if self.folder is not None and self._journal().get("key") != key:
            shutil.rmtree(self.folder, ignore_errors=True)
            with storage_errors(self.folder):
                self.folder.mkdir(parents=True)
            write_json(self.folder / JOURNAL, {"key": key, "finished": {}})
        self.columns = {name: self._column(name, *shape) for name, shape in shapes.items()}
        return self.columns

    def unfinished(self, parts: Sequence[Part], *, reader: str) -> Iterator[Part]:
        """Yield the parts that are not yet written; a part counts as written once the next one is asked for.

        Args:
            parts: parts of the rows.
            reader: identifies what writes them, as several readers may write columns of their own.
        """
        first, last_sync = self.n_finished(reader), time.monotonic()
        for number, part in enumerate(parts[first:], start=first + 1):
            yield part
            if self.folder is not None and (number == len(parts) or time.monotonic() - last_sync > SYNC_SECONDS):
                self._sync()
                journal = self._journal()
                write_json(self.folder / JOURNAL, {**journal, "finished": {**journal["finished"], reader: number}})
                last_sync = time.monotonic()

    def n_finished(self, reader: str) -> int:
        """Return how many parts a reader has written and flushed to disk."""
        return int(self._journal().get("finished", {}).get(reader, 0))

    def append(self, more: Mapping[str, Tensor]) -> None:
        """Append rows to columns, which `columns` then holds as new tensors.

        Args:
            more: the rows to append, by column.

        Raises:
            StorageError: the disk is full, or writing is not permitted.
        """
        for name, rows in more.items():
            old = self.columns[name]
            longer = self._column(name, (len(old) + len(rows), *old.shape[1:]), old.dtype)
            if self.folder is None:
                longer[: len(old)] = old
            longer[len(old) :] = rows
            self.columns[name] = longer

    def _journal(self) -> dict[str, Any]:
        path = None if self.folder is None else self.folder / JOURNAL
        return read_json(path) if path is not None and path.is_file() else {}

    def _column(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if self.folder is None or not prod(shape):
            return torch.empty(shape, dtype=dtype)
        path = self.folder / f"{name}.bin"
        _allocate(path, prod(shape) * dtype.itemsize)
        return torch.from_file(str(path), shared=True, size=prod(shape), dtype=dtype).view(shape)

    def _sync(self) -> None:
        assert self.folder is not None
        with storage_errors(self.folder):
            for path in self.folder.glob("*.bin"):
                sync_path(path)


@contextlib.contextmanager
def state_folder(folder: Path | str | None) -> Iterator[Path]:
    """Yield a folder for states: the given one, or a temporary one that is deleted at the end."""
    if folder is not None:
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory(prefix="prosocial-states-", ignore_cleanup_errors=True) as temporary:
        yield Path(temporary)


Window = list[slice] | None  # the rows that a step draws from; None: all of them


def windows(n_rows: int, *, row_bytes: int, draws: int, generator: torch.Generator) -> Iterator[Window]:
    """Yield a window for each step of a training, without end.

    Rows of more than `WINDOW_BYTES` are read in shuffled blocks: each window is a random choice of blocks, and is kept
    for as many steps as it takes to draw each of its rows once. Smaller ones fit into the cache of files.

    Args:
        n_rows: rows of the columns.
        row_bytes: bytes of a row in all columns together.
        draws: rows that a step draws.
        generator: chooses the blocks.
    """
    n_blocks, most = -(-n_rows // BLOCK_ROWS), WINDOW_BYTES // (BLOCK_ROWS * row_bytes)
    while n_rows * row_bytes <= WINDOW_BYTES:
        yield None
    while True:
        chosen = torch.randperm(n_blocks, generator=generator)[: max(1, most)].sort().values.tolist()
        window = [slice(at * BLOCK_ROWS, min(n_rows, (at + 1) * BLOCK_ROWS)) for at in chosen]
        for _ in range(max(1, sum(part.stop - part.start for part in window) // draws)):
            yield window


def draw(n_rows: int, window: Window, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` random rows of a window over `n_rows`, with replacement."""
    if window is None:
        return torch.randint(n_rows, (count,), generator=generator)
    rows = torch.cat([torch.arange(part.start, part.stop) for part in window])
    return rows[torch.randint(len(rows), (count,), generator=generator)]


def within(rows: Tensor, window: Window) -> Tensor:
    """Return those of some ascending rows that are in a window; all of them if none is."""
    if window is None:
        return rows
    edges = torch.searchsorted(rows, torch.tensor([[part.start, part.stop] for part in window]))
    inside = torch.cat([rows[start:stop] for start, stop in edges.tolist()])
    return inside if len(inside) else rows


def _allocate(path: Path, n_bytes: int) -> None:
    """Give a file its size; without room for it a write to the mapped file would kill the process."""
    with storage_errors(path), path.open("ab") as stream:
        missing = n_bytes - stream.tell()
        try:
            if missing > 0 and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(stream.fileno(), stream.tell(), missing)
            elif missing > 0:  # macOS and Windows
                stream.truncate(n_bytes)
        except OSError:
            path.unlink()  # what was allocated before the disk was full
            raise
