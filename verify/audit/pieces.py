"""The same elements of base, model and deltas, piece by piece: memory does not depend on the size of a tensor."""

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
    """Some elements of a tensor.

    Attributes:
        at: place of the first one in the flattened tensor.
        base, found: [n] fp32, of the base and of the model.
        deltas: [k, n] fp32, one row for each vector.
    """

    at: int
    base: NDArray[np.float32]
    found: NDArray[np.float32]
    deltas: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.base)

    def take(self, chosen: Any) -> "Piece":
        """Return the chosen elements alone; their places in the tensor are lost."""
        return Piece(self.at, self.base[chosen], self.found[chosen], self.deltas[:, chosen])

    def finite(self) -> tuple[bool, bool, bool]:
        """Whether all elements of the base, of the model, and of the deltas are finite."""
        return _finite(self.base), _finite(self.found), all(map(_finite, self.deltas))


class PieceReader:
    """Reads a tensor of base and model with its deltas, in buffers that are used again.

    Args:
        base, found: where the tensor lies in both; F32, F16 or BF16.
        files: descriptors of the two files.
        deltas: one for each vector that changes the tensor.
    """

    def __init__(self, base: TensorInfo, found: TensorInfo, files: tuple[int, int], deltas: Sequence[Delta]) -> None:
        self.n_elements, self.dtype, self.base_dtype = found.n_elements, found.dtype, base.dtype
        self.n_vectors = len(deltas)
        self._tensors, self._files, self._deltas = (base, found), files, deltas
        n = min(PIECE_ELEMENTS, self.n_elements)
        self._raw = [np.empty(n, STORED[tensor.dtype]) for tensor in self._tensors]
        self._wide, self._rows = np.empty((2, n), np.float32), np.empty((len(deltas), n), np.float32)

    @property
    def places(self) -> range:
        """Where pieces begin."""
        return range(0, self.n_elements, PIECE_ELEMENTS)

    def stored(self, at: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the piece from `at` as stored, of base and model: [n] each, BF16 as uint16."""
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
        for delta, row in zip(self._deltas, self._rows, strict=True):  # deltas share one buffer in a thread
            np.copyto(row[:n], delta.piece(at, n))
        return Piece(at, self._wide[0, :n], self._wide[1, :n], self._rows[:, :n])

    def pieces(self) -> Iterator[Piece]:
        """Yield all pieces in order, each valid until the next."""
        return map(self.piece, self.places)


@contextlib.contextmanager
def open_pieces(base: TensorInfo, found: TensorInfo, deltas: Sequence[Deltas]) -> Iterator[PieceReader]:
    """Give a reader of a tensor for as long as it is used."""
    with contextlib.ExitStack() as open_things:
        files = [open_things.enter_context(tensor.file.open("rb")).fileno() for tensor in (base, found)]
        opened = [open_things.enter_context(each.delta(found.name)) for each in deltas]
        yield PieceReader(base, found, (files[0], files[1]), opened)


def _finite(values: NDArray[np.float32]) -> bool:
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.dot(values, values)) or np.isfinite(values).all())
