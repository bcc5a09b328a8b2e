"""Sparse storage of a delta: the places of the elements that are not zero, rising, and their values (torch-free)."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.header import TensorInfo
from ..checkpoints.numbers import PIECE_ELEMENTS
from ..errors import ArtefactError
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
    """A stored sparse delta, read in dense pieces from any place.

    The file is mapped into memory, so that only what a piece needs is read.
    """

    def __init__(self, stored: Sparse) -> None:
        self._stored, self.n_elements = stored, math.prod(stored.shape)
        self._indices, self._values = _map(stored.indices), _map(stored.values)

    def read(self, at: int, out: NDArray[np.float32]) -> NDArray[np.float32]:
        """Write the elements from `at` to `out` [n] fp32, and return it.

        Raises:
            ArtefactError: the indices do not rise, or one is outside the tensor.
        """
        end, indices = at + len(out), self._indices
        first = int(np.searchsorted(indices, indices.dtype.type(at))) if at else 0
        last = int(np.searchsorted(indices, indices.dtype.type(end))) if end < self.n_elements else len(indices)
        places = indices[first:last].astype(np.int64) - at
        if len(places) and (places[0] < 0 or places[-1] >= len(out) or (np.diff(places) <= 0).any()):
            raise ArtefactError(
                f"{self._stored.indices.file} should hold rising {self._stored.indices.name} below {self.n_elements}, "
                "found others: make the vector again"
            )
        out.fill(0.0)
        out[places] = self._values[first:last]
        return out


def _map(tensor: TensorInfo) -> NDArray[Any]:
    dtype = np.dtype(NUMPY_TYPES[tensor.dtype])
    if not tensor.n_elements:
        return np.empty(0, dtype)
    return np.memmap(tensor.file, dtype, "r", offset=tensor.start, shape=(tensor.n_elements,))
