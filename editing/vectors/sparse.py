"""Sparse storage of a delta: the places of the elements that are not zero, rising, and their values (torch-free)."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.header import TensorInfo
from ..checkpoints.numbers import PIECE_ELEMENTS
from ..errors import ArtefactError
from ..kernels.loops import native
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


def split(delta: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Return the places [n] of the elements of a flat delta that are not zero, and their values [n]."""
    dtype = NUMPY_TYPES[index_dtype(len(delta))]
    indices, values = [np.empty(0, dtype)], [np.empty(0, np.float32)]
    for at in range(0, len(delta), PIECE_ELEMENTS):
        piece = delta[at : at + PIECE_ELEMENTS]
        places = np.flatnonzero(piece != 0)
        indices.append((places + at).astype(dtype))
        values.append(piece[places])
    return np.concatenate(indices), np.concatenate(values)


class SparseReader:
    """A stored sparse delta, read in dense pieces from any place; the one after the last is found at once.

    The file is mapped into memory, so that only what a piece needs is read.

    Args:
        stored: where it lies.
        portable: keep to numpy; the numbers are the same.
    """

    def __init__(self, stored: Sparse, *, portable: bool = False) -> None:
        self._stored, self.n_elements = stored, math.prod(stored.shape)
        self._indices, self._values = _map(stored.indices), _map(stored.values)
        self._scatter = _scatter if portable or native is None or stored.indices.dtype != "I32" else native.scatter
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


def _scatter(indices: NDArray[Any], values: NDArray[np.float32], at: int, out: NDArray[np.float32]) -> int:
    """Write the entries from place `at` on to `out`; return their number, -1 where places do not rise."""
    out.fill(0.0)
    entries = indices[: len(out) + 1]  # more cannot rise within a piece
    beyond = np.flatnonzero(entries >= at + len(out))
    n_used = int(beyond[0]) if len(beyond) else len(entries)
    places = entries[:n_used].astype(np.int64) - at
    if n_used and (places[0] < 0 or (np.diff(places) <= 0).any()):
        return -1
    out[places] = values[:n_used]
    return n_used


def _map(tensor: TensorInfo) -> NDArray[Any]:
    dtype = np.dtype(NUMPY_TYPES[tensor.dtype])
    if not tensor.n_elements:
        return np.empty(0, dtype)
    return np.memmap(tensor.file, dtype, "r", offset=tensor.start, shape=(tensor.n_elements,))
