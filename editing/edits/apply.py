"""Carry out a planned edit: shard by shard, piece by piece, written aside and renamed when everything held."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from ..checkpoints.digests import TensorDigest, combine, stream_tensor
from ..checkpoints.header import Header, TensorInfo
from ..checkpoints.tensors import FLOATS, PIECE_ELEMENTS, bytes_of
from ..errors import InputError
from ..files import new_folder, read_json, sha256_file, write_json
from ..vectors.vector import HarmVector
from .arithmetic import ARITHMETIC, Subtraction
from .plan import EditPlan
from .realised import Realised, require_subtraction
from .record import RECORD_NAME, Base, Coefficient, EditRecord, Result, TensorResult, Term

Progress = Callable[[int, int], None]  # bytes of tensors done, bytes in all


def apply_edit(plan: EditPlan, out: Path, progress: Progress | None = None) -> EditRecord:
    """Write the edited checkpoint to `out`, with its `edit_record.json`.

    Headers, names, order and sharding are the target's, byte for byte; so are tensors that are not edited, and the side
    files. Memory does not depend on the size of the model (low-rank deltas are multiplied out one tensor at a time).

    Args:
        plan: a checked edit.
        out: the new folder.
        progress: called after each tensor with the bytes done and the bytes in all.

    Raises:
        InputError: `out` exists; a result is NaN or infinite; tied copies came apart.
        StorageError: not enough room, or no permission.
    """
    plan.check_destination(out)
    with new_folder(out) as aside:
        shards = _Shards(plan, aside, progress)
        for name, header in plan.target.headers.items():
            shards.write(name, header)
        _check_tied(plan, shards)
        require_subtraction(shards.inner_product)
        sides = _copy_files(plan, aside)
        record = _record(plan, shards, sides)
        write_json(aside / RECORD_NAME, record.to_json())
    return record


class _Shards:
    """The weight files under way, and what is known of their tensors so far."""

    def __init__(self, plan: EditPlan, folder: Path, progress: Progress | None) -> None:
        self._plan, self._folder, self._progress = plan, folder, progress
        self._vector = HarmVector(plan.vector)
        self._subtractions = {dtype: Subtraction(torch_dtype) for dtype, torch_dtype in FLOATS.items()}
        self._buffers = Realised.new_buffers()
        self._bytes_done = 0
        self.base: list[TensorDigest] = []
        self.out: list[TensorDigest] = []
        self.results: dict[str, TensorResult] = {}
        self.inner_product = 0.0

    def write(self, name: str, header: Header) -> None:
        """Write one weight file: the header's bytes, then each tensor at its place."""
        with (self._plan.target.folder / name).open("rb") as source, (self._folder / name).open("wb") as sink:
            os.posix_fallocate(sink.fileno(), 0, header.size_bytes)
            sink.write(source.read(header.data_start))
            for tensor in header.tensors.values():
                self._write_tensor(tensor, sink.write)

    def _write_tensor(self, tensor: TensorInfo, write: Callable[[memoryview], int]) -> None:
        coefficient = self._plan.coefficients.get(tensor.name)
        realised = Realised(coefficient, self._buffers) if coefficient else None
        before, after = hashlib.sha256(), hashlib.sha256()
        pieces = self._edited(tensor, realised, coefficient) if realised and coefficient else _copied(tensor)
        for source, result in pieces:
            before.update(source)
            after.update(result)
            write(result)
        self._note(tensor, before.hexdigest(), after.hexdigest(), realised)

    def _edited(
        self, tensor: TensorInfo, realised: Realised, coefficient: float
    ) -> Iterator[tuple[memoryview, memoryview]]:
        """Yield the raw bytes of each piece before and after the edit."""
        subtraction, dtype = self._subtractions[tensor.dtype], FLOATS[tensor.dtype]
        raw_pieces = stream_tensor(tensor, chunk_bytes=PIECE_ELEMENTS * dtype.itemsize)
        for raw, delta in zip(raw_pieces, self._vector.pieces(tensor.name, PIECE_ELEMENTS), strict=True):
            target = torch.frombuffer(raw, dtype=dtype)
            out = subtraction.apply(target, delta, coefficient)
            realised.add(target, out, delta)
            if not realised.finite:
                raise InputError(
                    f"{tensor.name} should stay finite in {tensor.dtype}, the edit makes it NaN or infinite: "
                    "take a smaller scale, or repair the target"
                )
            yield raw, bytes_of(out)

    def _note(self, tensor: TensorInfo, before: str, after: str, realised: Realised | None) -> None:
        self.base.append(TensorDigest(tensor.name, tensor.dtype, tensor.shape, before))
        self.out.append(TensorDigest(tensor.name, tensor.dtype, tensor.shape, after))
        self.results[tensor.name] = TensorResult(
            dtype=tensor.dtype,
            shape=tensor.shape,
            sha256=after,
            changed=before != after,
            gain=_short(realised.gain) if realised else None,
            unchanged_share=_short(realised.unchanged_share) if realised else None,
            relative_change=_short(realised.relative_change) if realised else None,
        )
        self.inner_product += realised.inner_product if realised else 0.0
        self._bytes_done += tensor.size_bytes
        if self._progress:
            self._progress(self._bytes_done, self._plan.target.size_bytes)


def _copied(tensor: TensorInfo) -> Iterator[tuple[memoryview, memoryview]]:
    return ((raw, raw) for raw in stream_tensor(tensor))


def _short(value: float | None) -> float | None:
    """Nine digits: the last ones of a sum depend on the number of threads, and a record should not."""
    return None if value is None else float(f"{value:.9g}")


def _check_tied(plan: EditPlan, shards: _Shards) -> None:
    """Tied copies that were equal must have stayed equal."""
    digests = {digest.name: digest.sha256 for digest in shards.base}
    copies = plan.target.tied.copies
    if not copies or digests[copies[0]] != digests[copies[1]]:
        return
    first, second = (shards.results[name].sha256 for name in copies)
    if first != second:
        raise InputError(
            f"{copies[0]} and {copies[1]} are tied and should stay equal: the vector changes them differently"
        )


def _copy_files(plan: EditPlan, folder: Path) -> dict[str, str]:
    """Copy the side files and the index; return their digests."""
    digests = {}
    for path in plan.copied_files:
        destination = folder / path
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(plan.target.folder / path, destination)
        digests[path] = sha256_file(destination)
    return digests


def _record(plan: EditPlan, shards: _Shards, sides: dict[str, str]) -> EditRecord:
    target, made = plan.target, plan.vector.description
    previous = target.folder / RECORD_NAME
    term = Term(
        sha256=plan.vector.sha256(),
        storage=made.kind,
        base_fingerprint=made.base_fingerprint,
        harmful_kind=made.harmful_kind,
        harmful_fingerprint=made.harmful_fingerprint,
        method=made.method,
        parameters=made.parameters,
        coefficients=[
            Coefficient(
                pattern=group.pattern,
                decimal=group.decimal,
                hex=float(group.coefficient).hex(),
                tensors=list(group.names),
            )
            for group in plan.groups
        ],
    )
    return EditRecord(
        base=Base(
            fingerprint=combine(shards.base),
            dtypes=target.n_by_dtype,
            previous=read_json(previous) if previous.is_file() else None,
        ),
        terms=[term],
        arithmetic=dict(ARITHMETIC),
        untouched=[name for name in target.tensors if name not in plan.coefficients],
        result=Result(
            fingerprint=combine(shards.out),
            inner_product=_short(shards.inner_product) or 0.0,
            tensors=dict(sorted(shards.results.items())),
            side_files=sides,
        ),
    )
