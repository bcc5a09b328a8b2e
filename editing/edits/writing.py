"""Writing the weight files of an edit: on several threads, with a journal for resuming, then read back and checked."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from prosocial.core.appended_rows import AppendedRows
from prosocial.core.cores import usable_cores
from prosocial.core.files import link_or_copy
from prosocial.core.resumable import clone_or_copy
from prosocial.core.shared_files import reserve, write_at

from ..checkpoints.header import Header, TensorInfo
from .deltas import Deltas
from .plan import EditPlan
from .rounding import Rounding
from .tensor_edit import TensorEditor, WrittenTensor, check_written, require_written

Progress = Callable[[int, int], None]  # bytes of tensors done, total bytes
FLUSH_BYTES = 256 << 20
JOURNAL_NAME = ".written.jsonl"


class Writing:
    """Writes all weight files of a plan into a folder, in which a killed process may have written some tensors already.

    Args:
        plan: the edit.
        folder: the temporary folder to write to.
        rounding: see `apply_edit`.
        verify: see `apply_edit`.
        sync: see `apply_edit`.
        link: see `apply_edit`.
        threads: see `apply_edit`.

    Attributes:
        vector_blake3: digest of the vector's weights, set by `run`.
    """

    def __init__(
        self,
        plan: EditPlan,
        folder: Path,
        *,
        rounding: Rounding,
        verify: bool,
        sync: bool,
        link: bool,
        threads: int | None,
    ) -> None:
        self._plan, self._folder = plan, folder
        self._verify, self._sync, self._link = verify, sync, link
        self._threads = threads or usable_cores()
        self._editor = TensorEditor(rounding)
        self._deltas = Deltas(plan.vector, digest=True)
        self._journal = AppendedRows(folder / JOURNAL_NAME)
        self._files: dict[Path, _ShardFiles] = {}
        self.vector_blake3 = ""

    def run(self, progress: Progress) -> dict[str, WrittenTensor]:
        """Write all tensors and read them back; return the digests and measures of each by name.

        Args:
            progress: called from this thread after each tensor with the bytes done and the total bytes.
        """
        tensors = sorted(self._plan.target.tensors.values(), key=lambda tensor: -tensor.size_bytes)
        known = {row["name"]: WrittenTensor.from_json(row) for row in self._journal.rows}
        with contextlib.ExitStack() as files, _pool(self._threads) as pool:
            for name, header in self._plan.target.headers.items():
                source = self._plan.target.folder / name
                self._files[source] = self._open(source, self._folder / name, header, files)
            futures = [pool.submit(self._write, tensor, known.get(tensor.name)) for tensor in tensors]
            written = self._collect(futures, progress)
            if self._verify:
                for check in [pool.submit(self._require, tensor, written[tensor.name]) for tensor in tensors]:
                    check.result()
            self.vector_blake3 = self._deltas.blake3()
        return written

    def forget(self) -> None:
        """Delete the journal; after that the work can no longer be resumed."""
        self._journal.path.unlink(missing_ok=True)

    def _open(self, source: Path, sink: Path, header: Header, files: contextlib.ExitStack) -> "_ShardFiles":
        """Open a weight file of both folders: write the new file's header and reserve its size, or clone the file."""
        edited = any(name in self._plan.coefficients for name in header.tensors)
        if not edited:
            sink.unlink(missing_ok=True)
            (link_or_copy if self._link else clone_or_copy)(source, sink)
        else:
            sink.touch()
        old = files.enter_context(source.open("rb"))
        new = files.enter_context(sink.open("r+b" if edited else "rb", buffering=0))
        if edited:
            reserve(new.fileno(), header.size_bytes)
            write_at(new.fileno(), memoryview(old.read(header.data_start)), 0)
        return _ShardFiles(old.fileno(), new.fileno(), edited)

    def _write(self, tensor: TensorInfo, known: WrittenTensor | None) -> WrittenTensor:
        """Write a tensor, unless a killed process has written it already and its bytes are intact."""
        files = self._files[tensor.file]
        if known and check_written(tensor, files.sink, known):
            return known
        coefficient = self._plan.coefficients.get(tensor.name)
        if coefficient:
            with self._deltas.delta(tensor.name) as delta:
                written = self._editor.edit(tensor, files.source, files.sink, delta, coefficient)
        else:
            written = self._editor.copy(tensor, files.source, files.sink if files.edited else None)
        self._journal.append(written.to_json())
        return written

    def _collect(self, futures: Iterable[Future[WrittenTensor]], progress: Progress) -> dict[str, WrittenTensor]:
        written, done, flushed = {}, 0, 0
        for future in as_completed(list(futures)):
            item = future.result()
            written[item.name] = item
            done += self._plan.target.tensors[item.name].size_bytes
            progress(done, self._plan.target.size_bytes)
            if self._sync and done - flushed > FLUSH_BYTES:
                flushed = done
                self._flush()
        return written

    def _flush(self) -> None:
        """Flush the files to disk while other threads compute, so that the last flush is short."""
        for files in self._files.values():
            if files.edited:
                os.fsync(files.sink)

    def _require(self, tensor: TensorInfo, written: WrittenTensor) -> None:
        require_written(tensor, self._files[tensor.file].sink, written)


@dataclass(frozen=True)
class _ShardFiles:
    """Descriptors of a weight file in the target and in the result, and whether any of its tensors is edited."""

    source: int
    sink: int
    edited: bool


@contextlib.contextmanager
def _pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Yield a thread pool that cancels all waiting tasks when a task fails."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="edit")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
