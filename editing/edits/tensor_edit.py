"""Editing one tensor: it is read piece by piece, subtracted from, written at the same offset, and hashed."""

import threading
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from blake3 import blake3

from prosocial.core.errors import InputError, StorageError
from prosocial.core.files import CHUNK_BYTES
from prosocial.core.shared_files import write_at

from ..checkpoints.digests import read_whole
from ..checkpoints.header import TensorInfo
from ..checkpoints.numbers import STORED
from .deltas import Delta
from .piece import PieceEdit
from .realised import Realised
from .rounding import Rounding


@dataclass(frozen=True)
class WrittenTensor:
    """Digests and measures of a tensor that was written.

    Attributes:
        name: name of the tensor.
        before: BLAKE3 of its raw bytes in the target.
        after: BLAKE3 of its raw bytes in the result.
        changed: whether any byte differs.
        realised: measures of the change; None for a copied tensor.
    """

    name: str
    before: str
    after: str
    changed: bool
    realised: Realised | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the value as plain data; `from_json` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "WrittenTensor":
        """Return the value from the plain data that `to_json` returns."""
        realised = data.pop("realised")
        return cls(**data, realised=Realised(**realised) if realised else None)


class TensorEditor:
    """Writes edited or copied tensors; each thread that uses it has its own buffers.

    Args:
        rounding: rounding mode of the results.
    """

    def __init__(self, rounding: Rounding) -> None:
        self._rounding = rounding
        self._own = threading.local()

    def edit(self, tensor: TensorInfo, source: int, sink: int, delta: Delta, coefficient: float) -> WrittenTensor:
        """Write target - coefficient * delta for one tensor.

        Args:
            tensor: the tensor; it has the same offsets in the target and in the result.
            source: descriptor of the target's file.
            sink: descriptor of the result's file.
            delta: delta of the tensor.
            coefficient: coefficient of the delta, representable in fp32, above 0.

        Raises:
            InputError: an element is NaN or infinite, before or after the edit.
            ArtefactError: a file was truncated in the meantime.
        """
        piece, raw = self._piece(tensor.dtype)
        realised, sums = Realised(coefficient), _Sums()
        for at in range(0, tensor.n_elements, len(raw)):
            before = raw[: tensor.n_elements - at]
            place = tensor.start + at * raw.itemsize
            read_whole(source, before.data.cast("B"), place, tensor)
            step = delta.piece(at, len(before))
            stored, done = piece.apply(before, step, coefficient, key=tensor.name, at=at)
            after = stored.data.cast("B")
            sums.add(before.data.cast("B"), after)
            write_at(sink, after, place)
            realised.add(done)
            if not realised.finite:
                raise InputError(
                    f"{tensor.name} should stay finite in {tensor.dtype}, the edit makes it NaN or infinite: "
                    "use a smaller scale, or repair the target"
                )
        return sums.written(tensor.name, changed=realised.n_changed > 0, realised=realised)

    def copy(self, tensor: TensorInfo, source: int, sink: int | None) -> WrittenTensor:
        """Copy a tensor from the target's file to the result's; if `sink` is None, only compute its digest."""
        sums, buffer = _Sums(), memoryview(bytearray(min(CHUNK_BYTES, tensor.size_bytes)))
        for at in range(tensor.start, tensor.end, CHUNK_BYTES):
            piece = buffer[: min(CHUNK_BYTES, tensor.end - at)]
            read_whole(source, piece, at, tensor)
            sums.add(piece, None)
            if sink is not None:
                write_at(sink, piece, at)
        return sums.written(tensor.name, changed=False)

    def _piece(self, dtype: str) -> tuple[PieceEdit, Any]:
        """Return this thread's buffers for a dtype."""
        if getattr(self._own, "dtype", None) != dtype:
            self._own.dtype = dtype
            piece = PieceEdit(dtype, self._rounding)
            self._own.buffers = piece, np.empty(piece.n_elements, STORED[dtype])
        buffers: tuple[PieceEdit, Any] = self._own.buffers
        return buffers


class _Sums:
    """Digests of a tensor's bytes before and after."""

    def __init__(self) -> None:
        self._before, self._after = blake3(), blake3()

    def add(self, before: memoryview, after: memoryview | None) -> None:
        """Add a piece; `after` is None if the piece was only copied."""
        self._before.update(before)
        if after is not None:
            self._after.update(after)

    def written(self, name: str, *, changed: bool, realised: Realised | None = None) -> WrittenTensor:
        before = self._before.hexdigest()
        return WrittenTensor(name, before, self._after.hexdigest() if realised else before, changed, realised)


def check_written(tensor: TensorInfo, file: int, written: WrittenTensor) -> bool:
    """Read a tensor back and return whether it has the digest that was recorded when it was written."""
    digest, buffer = blake3(), memoryview(bytearray(min(CHUNK_BYTES, tensor.size_bytes)))
    for at in range(tensor.start, tensor.end, CHUNK_BYTES):
        piece = buffer[: min(CHUNK_BYTES, tensor.end - at)]
        read_whole(file, piece, at, tensor)
        digest.update(piece)
    return digest.hexdigest() == written.after


def require_written(tensor: TensorInfo, file: int, written: WrittenTensor) -> None:
    """Check that a tensor reads back as it was written.

    Raises:
        StorageError: its bytes differ from those written.
    """
    if not check_written(tensor, file, written):
        raise StorageError(
            f"{tensor.name} should read back from {tensor.file.name} as it was written, its bytes differ: "
            "disk or memory is faulty; write to another disk"
        )
