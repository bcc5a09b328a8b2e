"""The deltas of a stored vector in pieces: straight from the file where they are dense or sparse, else by torch."""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.header import TensorInfo
from ..errors import ArtefactError
from ..vectors.folder import Sparse, VectorFolder
from ..vectors.sparse import SparseReader


class Delta(Protocol):
    """One tensor's delta, for as long as it is used."""

    def piece(self, at: int, n_elements: int) -> NDArray[np.float32]:
        """Return elements from `at`, [n] fp32, valid until this thread asks for the next ones."""
        ...


class DenseDelta:
    """A delta stored as it is, read from its file.

    Args:
        tensor: where it lies.
        file: descriptor.
    """

    def __init__(self, tensor: TensorInfo, file: int) -> None:
        self._tensor, self._file = tensor, file

    def piece(self, at: int, n_elements: int) -> NDArray[np.float32]:
        """Return elements from `at`.

        Raises:
            ArtefactError: the file became shorter meanwhile.
        """
        buffer = _buffer(n_elements)
        n_read = os.preadv(self._file, [buffer.data.cast("B")], self._tensor.start + 4 * at)
        if n_read != buffer.nbytes:
            raise ArtefactError(
                f"{self._tensor.file} should hold {self._tensor.name} whole: it was cut short meanwhile"
            )
        return buffer


class SparseDelta:
    """A delta stored as places and values."""

    def __init__(self, stored: Sparse) -> None:
        self._reader = SparseReader(stored)

    def piece(self, at: int, n_elements: int) -> NDArray[np.float32]:
        """Return elements from `at`."""
        return self._reader.read(at, _buffer(n_elements))


class WholeDelta:
    """A delta in memory, [n] fp32."""

    def __init__(self, whole: NDArray[np.float32]) -> None:
        self._whole = whole

    def piece(self, at: int, n_elements: int) -> NDArray[np.float32]:
        """Return elements from `at`."""
        return self._whole[at : at + n_elements]


class Deltas:
    """All deltas of a stored vector, for any number of threads.

    Products of factors are made by torch, whole and one at a time: memory holds one of them.
    """

    def __init__(self, vector: VectorFolder) -> None:
        self._vector = vector
        self._one_at_a_time = threading.Lock()

    @contextlib.contextmanager
    def delta(self, name: str) -> Iterator[Delta]:
        """Give one tensor's delta for as long as it is used."""
        if name in self._vector.dense:
            tensor = self._vector.dense[name]
            with tensor.file.open("rb") as stream:
                yield DenseDelta(tensor, stream.fileno())
        elif name in self._vector.sparse:
            yield SparseDelta(self._vector.sparse[name])
        else:
            from ..vectors.vector import HarmVector

            with self._one_at_a_time:
                yield WholeDelta(HarmVector(self._vector).delta(name).flatten().numpy())


_own = threading.local()


def _buffer(n_elements: int) -> NDArray[np.float32]:
    """Return this thread's buffer, re-used."""
    held = getattr(_own, "buffer", None)
    if held is None or len(held) < n_elements:
        held = _own.buffer = np.empty(n_elements, np.float32)
    part: NDArray[np.float32] = held[:n_elements]
    return part
