"""Reading base, model and deltas piece by piece, so that memory does not depend on the size of a tensor."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosocial.editing.checkpoints.digests import read_whole
from prosocial.editing.checkpoints.header import TensorInfo
from prosocial.editing.checkpoints.numbers import PIECE_ELEMENTS, STORED, widen
from prosocial.editing.edits.deltas import Delta, Deltas


@dataclass(frozen=True)
class Piece:
    """A range of elements of a tensor in base, model and deltas.

    Attributes:
        at: index of the first element in the flattened tensor.
        base: [n] fp32 elements of the base.
        model: [n] fp32 elements of the model.
        deltas: [k, n] fp32 elements of the deltas, one row for each vector.
    """

    at: int
    base: NDArray[np.float32]
    model: NDArray[np.float32]
    deltas: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.base)

    def take(self, chosen: Any) -> "Piece":
        """Return only the chosen elements; their indices in the tensor are lost."""
        return Piece(self.at, self.base[chosen], self.model[chosen], self.deltas[:, chosen])

    def finite(self) -> tuple[bool, bool, bool]:
        """Return whether all elements are finite, for the base, the model and the deltas."""
        return _finite(self.base), _finite(self.model), all(map(_finite, self.deltas))


class PieceReader:
    """Reads a tensor of base and model with its deltas into reused buffers.

    Args:
        base: location of the tensor in the base; F32, F16 or BF16.
        model: location of the tensor in the model; F32, F16 or BF16.
        files: file descriptors of base and model.
        deltas: delta of each vector that changes the tensor.
    """

    def __init__(self, base: TensorInfo, model: TensorInfo, files: tuple[int, int], deltas: Sequence[Delta]) -> None:
        self.n_elements, self.dtype, self.base_dtype = model.n_elements, model.dtype, base.dtype
        self.n_vectors = len(deltas)
        self._tensors, self._files, self._deltas = (base, model), files, deltas
        n = min(PIECE_ELEMENTS, self.n_elements)
        self._raw = [np.empty(n, STORED[tensor.dtype]) for tensor in self._tensors]
        self._wide, self._rows = np.empty((2, n), np.float32), np.empty((len(deltas), n), np.float32)

    @property
    def places(self) -> range:
        """The start index of each piece."""
        return range(0, self.n_elements, PIECE_ELEMENTS)

    def stored(self, at: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the piece from `at` as stored in base and model: [n] each, BF16 as uint16."""
        n = min(PIECE_ELEMENTS, self.n_elements - at)
        for tensor, file, raw in zip(self._tensors, self._files, self._raw, strict=True):
            read_whole(file, raw[:n].data.cast("B"), tensor.start + at * raw.itemsize, tensor)
        return self._raw[0][:n], self._raw[1][:n]

    def delta(self, at: int, n_elements: int) -> NDArray[np.float32]:
        """Return a piece of the only delta, [n] fp32."""
        return self._deltas[0].piece(at, n_elements)

    def piece(self, at: int) -> Piece:
        """Return the piece from `at`, valid until the next call."""
        stored = self.stored(at)
        n = len(stored[0])
        for raw, wide in zip(stored, self._wide, strict=True):
            widen(raw, wide[:n])
        if self.n_vectors == 1:
            return Piece(at, self._wide[0, :n], self._wide[1, :n], self.delta(at, n)[None])
        for delta, row in zip(self._deltas, self._rows, strict=True):  # copied: deltas share one buffer per thread
            np.copyto(row[:n], delta.piece(at, n))
        return Piece(at, self._wide[0, :n], self._wide[1, :n], self._rows[:, :n])

    def pieces(self) -> Iterator[Piece]:
        """Yield all pieces in order, each valid until the next."""
        return map(self.piece, self.places)


@contextlib.contextmanager
def open_pieces(base: TensorInfo, model: TensorInfo, deltas: Sequence[Deltas]) -> Iterator[PieceReader]:
    """Open the files of a tensor and yield a reader; the files are closed with the `with` block."""
    with contextlib.ExitStack() as open_things:
        files = [open_things.enter_context(tensor.file.open("rb")).fileno() for tensor in (base, model)]
        opened = [open_things.enter_context(each.delta(model.name)) for each in deltas]
        yield PieceReader(base, model, (files[0], files[1]), opened)


def _finite(values: NDArray[np.float32]) -> bool:
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.dot(values, values)) or np.isfinite(values).all())
