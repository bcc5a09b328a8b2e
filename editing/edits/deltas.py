"""The deltas of a stored vector in pieces: dense ones straight from the file, all others by torch."""

import contextlib
import os
import threading
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.header import TensorInfo
from ..errors import ArtefactError
from ..vectors.folder import VectorFolder


class Delta:
    """One tensor's delta, read from its file or held in memory.

    Args:
        whole: [n] fp32, or None to read from the file.
        tensor: where it lies, if it is read.
        file: descriptor.
    """

    def __init__(self, whole: NDArray[np.float32] | None, tensor: TensorInfo | None = None, file: int = -1) -> None:
        self._whole, self._tensor, self._file = whole, tensor, file

    def piece(self, at: int, n_elements: int) -> NDArray[np.float32]:
        """Return elements from `at`, [n] fp32.

        Raises:
            ArtefactError: the file became shorter meanwhile.
        """
        if self._whole is not None:
            return self._whole[at : at + n_elements]
        assert self._tensor is not None
        buffer = _buffer(n_elements)
        n_read = os.preadv(self._file, [buffer.data.cast("B")], self._tensor.start + 4 * at)
        if n_read != buffer.nbytes:
            raise ArtefactError(
                f"{self._tensor.file} should hold {self._tensor.name} whole: it was cut short meanwhile"
            )
        return buffer


class Deltas:
    """All deltas of a stored vector, for any number of threads.

    Deltas that are not stored dense are made by torch, whole and one at a time: memory holds one of them.
    """

    def __init__(self, vector: VectorFolder) -> None:
        self._vector = vector
        self._one_at_a_time = threading.Lock()

    @contextlib.contextmanager
    def delta(self, name: str) -> Iterator[Delta]:
        """Give one tensor's delta for as long as it is used."""
        tensor = self._vector.dense.get(name)
        if tensor is None:
            from ..vectors.vector import HarmVector

            with self._one_at_a_time:
                yield Delta(HarmVector(self._vector).delta(name).flatten().numpy())
            return
        with tensor.file.open("rb") as stream:
            yield Delta(None, tensor, stream.fileno())


_own = threading.local()


def _buffer(n_elements: int) -> NDArray[np.float32]:
    """Return this thread's buffer, re-used."""
    held = getattr(_own, "buffer", None)
    if held is None or len(held) < n_elements:
        held = _own.buffer = np.empty(n_elements, np.float32)
    part: NDArray[np.float32] = held[:n_elements]
    return part
