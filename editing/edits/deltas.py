"""Reading the deltas of a stored vector in pieces: dense and sparse ones from the file, low-rank ones as products."""

import contextlib
import math
import threading
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from ..checkpoints.digests import read_whole
from ..checkpoints.header import TensorInfo
from ..checkpoints.numbers import buffer
from ..vectors.folder import Sparse, VectorFolder
from ..vectors.product import read_product
from ..vectors.sparse import SparseReader


class Delta(Protocol):
    """One tensor's delta, opened for reading."""

    def piece(self, at: int, n_elements: int) -> NDArray[np.float32]:
        """Return `n_elements` elements from index `at` as flat fp32, valid until the next call in this thread."""
        ...

    def digests(self) -> dict[str, str]:
        """Return the BLAKE3 of each stored part by name if all pieces were read once and in order; otherwise {}."""
        ...


class DenseDelta:
    """A densely stored delta, read from its file.

    Args:
        tensor: location of the delta.
        file: descriptor of the open file.
        digest: compute the digest while reading.
    """

    def __init__(self, tensor: TensorInfo, file: int, *, digest: bool) -> None:
        self._tensor, self._file = tensor, file
        self._digest, self._n_digested = blake3(), 0 if digest else -1

    def piece(self, at: int, n_elements: int) -> NDArray[np.float32]:
        """Return `n_elements` elements from index `at`.

        Raises:
            ArtefactError: the file was truncated in the meantime.
        """
        numbers = buffer(n_elements)
        raw = numbers.data.cast("B")
        read_whole(self._file, raw, self._tensor.start + 4 * at, self._tensor)
        if at == self._n_digested:
            self._digest.update(raw)
            self._n_digested += n_elements
        return numbers

    def digests(self) -> dict[str, str]:
        """Return the digest of the tensor."""
        whole = self._n_digested == self._tensor.n_elements
        return {self._tensor.name: self._digest.hexdigest()} if whole else {}


class SparseDelta:
    """A delta stored as indices and values; the arguments are those of `DenseDelta`."""

    def __init__(self, stored: Sparse, *, digest: bool) -> None:
        self._reader = SparseReader(stored)
        self._digests, self._n_digested = [blake3(), blake3()], 0 if digest else -1
        self._names = (stored.indices.name, stored.values.name)

    def piece(self, at: int, n_elements: int) -> NDArray[np.float32]:
        """Return `n_elements` elements from index `at`."""
        numbers = buffer(n_elements)
        entries = self._reader.read(at, numbers)
        if at == self._n_digested:
            for digest, part in zip(self._digests, entries, strict=True):
                digest.update(part.view(np.uint8).data)
            self._n_digested += n_elements
        return numbers

    def digests(self) -> dict[str, str]:
        """Return the digests of indices and values."""
        whole = self._n_digested == self._reader.n_elements
        return dict(zip(self._names, (digest.hexdigest() for digest in self._digests), strict=True)) if whole else {}


class WholeDelta:
    """A delta in memory, [n] fp32."""

    def __init__(self, whole: NDArray[np.float32]) -> None:
        self._whole = whole

    def piece(self, at: int, n_elements: int) -> NDArray[np.float32]:
        """Return `n_elements` elements from index `at`."""
        return self._whole[at : at + n_elements]

    def digests(self) -> dict[str, str]:
        """Return {}: the delta was not read piece by piece."""
        return {}


class PaddedDelta:
    """A delta followed by zeros, for a target with more rows of the vocabulary than the vector.

    Args:
        delta: the stored delta.
        n_elements: number of its elements.
    """

    def __init__(self, delta: Delta, n_elements: int) -> None:
        self._delta, self._n_elements = delta, n_elements

    def piece(self, at: int, n_elements: int) -> NDArray[np.float32]:
        """Return `n_elements` elements from index `at`; those past the stored ones are 0."""
        n_held = max(0, min(n_elements, self._n_elements - at))
        if n_held == n_elements:
            return self._delta.piece(at, n_elements)
        padded = np.zeros(n_elements, np.float32)
        if n_held:
            padded[:n_held] = self._delta.piece(at, n_held)
        return padded

    def digests(self) -> dict[str, str]:
        """Return the digests of the stored parts."""
        return self._delta.digests()


class Deltas:
    """All deltas of a stored vector; several threads may read them.

    The products of low-rank factors are computed as whole tensors, one at a time to limit memory.

    Args:
        vector: the stored vector.
        digest: compute digests of the parts that are read in order, so that `blake3` does not read them again.
    """

    def __init__(self, vector: VectorFolder, *, digest: bool = False) -> None:
        self._vector, self._digest = vector, digest
        self._one_at_a_time = threading.Lock()
        self._digests: dict[str, str] = {}

    @contextlib.contextmanager
    def delta(self, name: str) -> Iterator[Delta]:
        """Open one tensor's delta for the `with` block; past its end it is 0."""
        with self._open(name) as delta:
            yield PaddedDelta(delta, math.prod(self._vector.shape(name)))
            self._digests |= delta.digests()

    def blake3(self) -> str:
        """Return the vector's digest; parts without a digest so far are read now."""
        return self._vector.blake3(self._digests)

    @contextlib.contextmanager
    def _open(self, name: str) -> Iterator[Delta]:
        if name in self._vector.dense:
            tensor = self._vector.dense[name]
            with tensor.file.open("rb") as stream:
                yield DenseDelta(tensor, stream.fileno(), digest=self._digest)
        elif name in self._vector.sparse:
            yield SparseDelta(self._vector.sparse[name], digest=self._digest)
        else:
            with self._one_at_a_time:
                yield WholeDelta(read_product(self._vector.factors[name]).reshape(-1))
