"""Sparse storage of a delta: the places of the elements that are not zero, rising, and their values (torch-free)."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.header import TensorInfo
from ..checkpoints.numbers import LOOP_ELEMENTS
from ..errors import ArtefactError
from ..kernels import portable
from ..kernels.loops import Loops, loops
from .folder import Sparse

VALUE_BYTES = 4
INDEX_BYTES = {"I32": 4, "I64": 8}
NUMPY_TYPES = {"I32": "<i4", "I64": "<i8", "F32": "<f4"}


def index_dtype(n_elements: int) -> str:
    """Return the safetensors dtype of places in a tensor of so many elements."""
    return "I32" if n_elements <= np.iinfo(np.int32).max else "I64"


def is_smaller(n_elements: int, n_zeros: int) -> bool:
    """Whether places and values take fewer bytes than all the elements.

    >>> is_smaller(100, 50), is_smaller(100, 51)
    (False, True)
    """
    index_bytes = INDEX_BYTES[index_dtype(n_elements)]
    return (n_elements - n_zeros) * (index_bytes + VALUE_BYTES) < n_elements * VALUE_BYTES


def split(delta: NDArray[np.float32], n_entries: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Return the places [n] of the elements of a flat delta that are not zero, and their values [n].

    Args:
        delta: fp32.
        n_entries: how many there are.
    """
    dtype = index_dtype(len(delta))
    indices, values, done = np.empty(n_entries, NUMPY_TYPES[dtype]), np.empty(n_entries, np.float32), 0
    places, found = np.empty(LOOP_ELEMENTS, NUMPY_TYPES[dtype]), np.empty(LOOP_ELEMENTS, np.float32)
    gather = loops.gather if dtype == "I32" else portable.gather
    for at in range(0, len(delta), LOOP_ELEMENTS):
        piece = delta[at : at + LOOP_ELEMENTS]
        n_found = gather(piece, at, places[: len(piece)], found[: len(piece)])
        indices[done : done + n_found], values[done : done + n_found] = places[:n_found], found[:n_found]
        done += n_found
    return indices, values


class SparseReader:
    """A stored sparse delta, read in dense pieces from any place; the one after the last is found at once.

    The file is mapped into memory, so that only what a piece needs is read.

    Args:
        stored: where it lies.
        by: the loops to read with; those in C know I32 alone.
    """

    def __init__(self, stored: Sparse, by: Loops = loops) -> None:
        self._stored, self.n_elements = stored, math.prod(stored.shape)
        self._indices, self._values = _map(stored.indices), _map(stored.values)
        self._scatter = by.scatter if stored.indices.dtype == "I32" else portable.scatter
        self._at = self._entry = 0

    def read(self, at: int, out: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Write the elements from `at` to `out` [n] fp32; return the indices and the values that they came from.

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
                f"{self._stored.indices.file} should hold rising {self._stored.indices.name} below {self.n_elements}, "
                "found others: make the vector again"
            )
        return indices[:n_used], values[:n_used]


def _map(tensor: TensorInfo) -> NDArray[Any]:
    dtype = np.dtype(NUMPY_TYPES[tensor.dtype])
    if not tensor.n_elements:
        return np.empty(0, dtype)
    return np.memmap(tensor.file, dtype, "r", offset=tensor.start, shape=(tensor.n_elements,))
