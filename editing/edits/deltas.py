"""The deltas of a stored vector in pieces: straight from the file where they are dense or sparse, else by torch."""

import contextlib
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
from ..vectors.sparse import SparseReader


class Delta(Protocol):
    """One tensor's delta, for as long as it is used."""

    def piece(self, at: int, n_elements: int) -> NDArray[np.float32]:
        """Return elements from `at`, [n] fp32, valid until this thread asks for others."""
        ...

    def digests(self) -> dict[str, str]:
        """Return the BLAKE3 of each stored part, by name, if all was read once, in order; else nothing."""
        ...


class DenseDelta:
    """A delta stored as it is, read from its file.

    Args:
        tensor: where it lies.
        file: descriptor.
        digest: compute digests on the way.
    """

    def __init__(self, tensor: TensorInfo, file: int, *, digest: bool) -> None:
        self._tensor, self._file = tensor, file
        self._digest, self._n_digested = blake3(), 0 if digest else -1

    def piece(self, at: int, n_elements: int) -> NDArray[np.float32]:
        """Return elements from `at`.

        Raises:
            ArtefactError: the file became shorter meanwhile.
        """
        numbers = buffer(n_elements)
        raw = numbers.data.cast("B")
        read_whole(self._file, raw, self._tensor.start + 4 * at, self._tensor)
        if at == self._n_digested:
            self._digest.update(raw)
            self._n_digested += n_elements
        return numbers

    def digests(self) -> dict[str, str]:
        """Return the digest of the one part."""
        whole = self._n_digested == self._tensor.n_elements
        return {self._tensor.name: self._digest.hexdigest()} if whole else {}


class SparseDelta:
    """A delta stored as places and values; arguments as of `DenseDelta`."""

    def __init__(self, stored: Sparse, *, digest: bool) -> None:
        self._reader = SparseReader(stored)
        self._digests, self._n_digested = [blake3(), blake3()], 0 if digest else -1
        self._names = (stored.indices.name, stored.values.name)

    def piece(self, at: int, n_elements: int) -> NDArray[np.float32]:
        """Return elements from `at`."""
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
        """Return elements from `at`."""
        return self._whole[at : at + n_elements]

    def digests(self) -> dict[str, str]:
        """Its parts were not read in pieces."""
        return {}


class Deltas:
    """All deltas of a stored vector, for any number of threads.

    Products of factors are made by torch, whole and one at a time: memory holds one of them.

    Args:
        vector: the stored vector.
        digest: compute digests of what is read in order, so that `blake3` need not read it again.
    """

    def __init__(self, vector: VectorFolder, *, digest: bool = False) -> None:
        self._vector, self._digest = vector, digest
        self._one_at_a_time = threading.Lock()
        self._digests: dict[str, str] = {}

    @contextlib.contextmanager
    def delta(self, name: str) -> Iterator[Delta]:
        """Give one tensor's delta for as long as it is used."""
        with self._open(name) as delta:
            yield delta
            self._digests |= delta.digests()

    def blake3(self) -> str:
        """Return the vector's digest; what was not read yet is read now."""
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
            from ..vectors.vector import HarmVector

            with self._one_at_a_time:
                yield WholeDelta(HarmVector(self._vector).delta(name).flatten().numpy())
