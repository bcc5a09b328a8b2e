"""Sparse storage of a delta: the rising indices of its non-zero elements, and their values (torch-free)."""

import contextlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosocial.core.errors import ArtefactError

from ..checkpoints.header import TensorInfo
from ..checkpoints.numbers import LOOP_ELEMENTS
from ..kernels import portable
from ..kernels.loops import Loops, loops
from .folder import Sparse

VALUE_BYTES = 4
ROOM_ENTRIES = 4 * LOOP_ELEMENTS
INDEX_BYTES = {"I32": 4, "I64": 8}
NUMPY_TYPES = {"I32": "<i4", "I64": "<i8", "F32": "<f4"}


def index_dtype(n_elements: int) -> str:
    """Return the safetensors dtype of indices into a tensor of `n_elements` elements."""
    return "I32" if n_elements <= np.iinfo(np.int32).max else "I64"


def is_smaller(n_elements: int, n_zeros: int) -> bool:
    """Return whether sparse storage takes fewer bytes than dense storage.

    >>> is_smaller(100, 50), is_smaller(100, 51)
    (False, True)
    """
    index_bytes = INDEX_BYTES[index_dtype(n_elements)]
    return (n_elements - n_zeros) * (index_bytes + VALUE_BYTES) < n_elements * VALUE_BYTES


Room = tuple[NDArray[Any], NDArray[np.float32]]


class Entries:
    """Indices and values of a delta's non-zero elements, collected piece by piece.

    Args:
        n_elements: number of elements of the whole delta.
        rooms: pool of released buffers (int32 indices, fp32 values), which are faster to use than new memory.

    Attributes:
        n_elements: number of elements of the whole delta.
        dtype: safetensors dtype of the indices.
        n_entries: number of non-zero elements so far.
    """

    def __init__(self, n_elements: int, rooms: list[Room] | None = None) -> None:
        self.n_elements, self.dtype, self.n_entries = n_elements, index_dtype(n_elements), 0
        self._rooms = [] if rooms is None or self.dtype != "I32" else rooms
        self._taken: list[Room] = []
        self._filled: list[int] = []
        self._gather = loops.gather if self.dtype == "I32" else portable.gather
        self._at = 0

    @classmethod
    def of(cls, delta: NDArray[np.float32]) -> "Entries":
        """Return the entries of a flat delta."""
        entries = cls(len(delta))
        for at in range(0, len(delta), LOOP_ELEMENTS):
            entries.add(delta[at : at + LOOP_ELEMENTS])
        return entries

    def add(self, piece: NDArray[np.float32]) -> None:
        """Add the next elements of the delta, [n] fp32 with n at most `LOOP_ELEMENTS`."""
        if not self._filled or self._filled[-1] + len(piece) > ROOM_ENTRIES:
            self._taken.append(self._room())
            self._filled.append(0)
        span = slice(self._filled[-1], self._filled[-1] + len(piece))
        places, values = self._taken[-1]
        n_nonzero = self._gather(piece, self._at, places[span], values[span])
        self._filled[-1] += n_nonzero
        self.n_entries += n_nonzero
        self._at += len(piece)

    @property
    def parts(self) -> list[Room]:
        """Indices and values in order, as pairs of arrays."""
        filled = zip(self._taken, self._filled, strict=True)
        return [(places[:n_entries], values[:n_entries]) for (places, values), n_entries in filled]

    def release(self) -> None:
        """Return the buffers to the pool; the entries are then invalid."""
        self._rooms += self._taken
        self._taken, self._filled = [], []

    def whole(self) -> NDArray[np.float32]:
        """Return the whole delta as a flat dense array."""
        delta = np.zeros(self.n_elements, np.float32)
        for places, values in self.parts:
            delta[places] = values
        return delta

    def _room(self) -> Room:
        with contextlib.suppress(IndexError):  # the pool is empty; another thread may have taken the last buffer
            return self._rooms.pop()
        return np.empty(ROOM_ENTRIES, NUMPY_TYPES[self.dtype]), np.empty(ROOM_ENTRIES, np.float32)


class SparseReader:
    """Reads a stored sparse delta as dense pieces, from any index; consecutive pieces need no search.

    The file is memory-mapped, so only the parts that a piece needs are read.

    Args:
        stored: location of the sparse delta.
        by: implementation of the loops; the C loops support I32 indices only, for I64 numpy is used.
    """

    def __init__(self, stored: Sparse, by: Loops = loops) -> None:
        self._stored, self.n_elements = stored, math.prod(stored.shape)
        self._indices, self._values = _map(stored.indices), _map(stored.values)
        self._scatter = by.scatter if stored.indices.dtype == "I32" else portable.scatter
        self._at = self._entry = 0

    def read(self, at: int, out: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Write the n elements from index `at` to `out` [n] fp32; return the stored indices and values among them.

        Raises:
            ArtefactError: the indices do not rise, or one is outside the tensor.
        """
        if at != self._at:
            self._entry = int(np.searchsorted(self._indices, self._indices.dtype.type(at)))
        indices, values = self._indices[self._entry :], self._values[self._entry :]
        n_used = self._scatter(indices, values, at, out)
        self._at, self._entry = at + len(out), self._entry + n_used
        if n_used < 0 or (self._at >= self.n_elements and n_used < len(indices)):
            raise ArtefactError(
                f"{self._stored.indices.file} should hold rising indices below {self.n_elements} in "
                f"{self._stored.indices.name}, found others: make the vector again"
            )
        return indices[:n_used], values[:n_used]


def _map(tensor: TensorInfo) -> NDArray[Any]:
    dtype = np.dtype(NUMPY_TYPES[tensor.dtype])
    if not tensor.n_elements:
        return np.empty(0, dtype)
    return np.memmap(tensor.file, dtype, "r", offset=tensor.start, shape=(tensor.n_elements,))
