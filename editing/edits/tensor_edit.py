"""One tensor under edit: read piece by piece, subtracted, written at its own place, and what is then known of it."""

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
    """What is known of a tensor once it is written.

    Attributes:
        name: of the tensor.
        before, after: BLAKE3 of the raw bytes of the target and of the result.
        changed: whether any byte differs.
        realised: what the edit did; None for a copied tensor.
    """

    name: str
    before: str
    after: str
    changed: bool
    realised: Realised | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain data, from which `from_json` gives an equal value."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "WrittenTensor":
        """Read what `to_json` gave."""
        realised = data.pop("realised")
        return cls(**data, realised=Realised(**realised) if realised else None)


class TensorEditor:
    """Writes tensors from any number of threads, each with buffers of its own that are re-used.

    Args:
        rounding: of the results.
    """

    def __init__(self, rounding: Rounding) -> None:
        self._rounding = rounding
        self._own = threading.local()

    def edit(self, tensor: TensorInfo, source: int, sink: int, delta: Delta, coefficient: float) -> WrittenTensor:
        """Write target - coefficient * delta.

        Args:
            tensor: where it lies, in the target and in the result alike.
            source, sink: descriptors of the two files.
            delta: its delta.
            coefficient: a number of fp32, above 0.

        Raises:
            InputError: an element is NaN or infinite, before or after.
            ArtefactError: a file became shorter meanwhile.
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
                    "take a smaller scale, or repair the target"
                )
        return sums.written(tensor.name, changed=realised.n_changed > 0, realised=realised)

    def copy(self, tensor: TensorInfo, source: int, sink: int | None) -> WrittenTensor:
        """Write the target's bytes, or with no sink only look at them."""
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
        found: tuple[PieceEdit, Any] = self._own.buffers
        return found


class _Sums:
    """Digests of a tensor's bytes before and after."""

    def __init__(self) -> None:
        self._before, self._after = blake3(), blake3()

    def add(self, before: memoryview, after: memoryview | None) -> None:
        """Count a piece; `after` is None where it is the same bytes."""
        self._before.update(before)
        if after is not None:
            self._after.update(after)

    def written(self, name: str, *, changed: bool, realised: Realised | None = None) -> WrittenTensor:
        before = self._before.hexdigest()
        return WrittenTensor(name, before, self._after.hexdigest() if realised else before, changed, realised)


def check_written(tensor: TensorInfo, file: int, written: WrittenTensor) -> bool:
    """Read a tensor again: are its bytes those that were written?"""
    digest, buffer = blake3(), memoryview(bytearray(min(CHUNK_BYTES, tensor.size_bytes)))
    for at in range(tensor.start, tensor.end, CHUNK_BYTES):
        piece = buffer[: min(CHUNK_BYTES, tensor.end - at)]
        read_whole(file, piece, at, tensor)
        digest.update(piece)
    return digest.hexdigest() == written.after


def require_written(tensor: TensorInfo, file: int, written: WrittenTensor) -> None:
    """Check that a tensor reads as it was written.

    Raises:
        StorageError: it does not.
    """
    if not check_written(tensor, file, written):
        raise StorageError(
            f"{tensor.name} should read as it was written to {tensor.file.name}, other bytes came back: "
            "disk or memory is faulty; write to another disk"
        )
