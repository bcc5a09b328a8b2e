"""A harm vector whose deltas are read as torch tensors; torch is imported only when a delta is read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prosocial.core.cores import memory_bytes
from prosocial.core.errors import ArtefactError

from ..checkpoints.digests import stream_tensor
from .description import VectorDescription
from .folder import VectorFolder
from .product import multiply_factors
from .sparse import SparseReader

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class LowRank:
    """The low-rank factors of a delta, which is scale * (up @ down) or its transpose.

    Attributes:
        down: [rank, n] fp32.
        up: [m, rank] fp32.
        scale: scale of the product.
        transposed: whether the delta is the transpose of the product.
    """

    down: torch.Tensor
    up: torch.Tensor
    scale: float
    transposed: bool

    def product(self) -> torch.Tensor:
        """Return the delta, [m, n] or, if transposed, [n, m]."""
        import torch

        factors = self.down.numpy(), self.up.numpy()
        return torch.from_numpy(multiply_factors(*factors, self.scale, transposed=self.transposed))


class HarmVector:
    """The weight difference between a harmful model and its base: one fp32 delta for each tensor that it changes.

    Attributes:
        stored: the vector folder that the deltas are read from.
    """

    def __init__(self, stored: VectorFolder) -> None:
        self.stored = stored

    @classmethod
    def open(cls, folder: Path | str) -> HarmVector:
        """Open a vector folder; each delta is read when it is requested.

        Raises:
            ArtefactError: the folder is not a valid harm vector.
        """
        return cls(VectorFolder.open(folder))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors that the vector changes, sorted."""
        return self.stored.names

    @property
    def base_fingerprint(self) -> str:
        """Fingerprint of the base checkpoint."""
        return self.summary.base_fingerprint

    @property
    def harmful_fingerprint(self) -> str:
        """Fingerprint of the harmful checkpoint, SHA-256 of the adapter file, or a digest over several parents."""
        return self.summary.harmful_fingerprint

    @property
    def summary(self) -> VectorDescription:
        """The vector's description: norms, relatedness, method and parameters."""
        return self.stored.description

    def delta(self, name: str) -> torch.Tensor:
        """Return the delta of a tensor, fp32, in the shape of the checkpoint's tensor.

        Raises:
            ArtefactError: the vector does not change a tensor of that name.
        """
        import torch

        from ..checkpoints.tensors import read_tensor_fp32

        if name in self.stored.dense:
            return read_tensor_fp32(self.stored.dense[name])
        if name in self.stored.sparse:
            whole = self._room(name)
            SparseReader(self.stored.sparse[name]).read(0, whole)
            return torch.from_numpy(whole).reshape(self.shape(name))
        factors = self.low_rank(name)
        if factors is not None:
            return factors.product()
        raise ArtefactError(
            f"{self.stored.folder} should change a tensor {name!r}: it changes {len(self.names)} others, see `names`"
        )

    def _room(self, name: str) -> NDArray[np.float32]:
        """Return memory for a whole delta, whose size a few stored elements do not bound.

        Raises:
            ArtefactError: it does not fit into half of this machine's memory.
        """
        n_elements = math.prod(self.shape(name))
        if 4 * n_elements > memory_bytes() // 2:
            raise ArtefactError(
                f"{self.stored.folder} should fit into memory, found {name} with {n_elements} elements: edit reads it "
                "in pieces"
            )
        return np.empty(n_elements, np.float32)

    def runs(self, name: str) -> list[torch.Tensor]:
        """Return the deltas of the harmful runs; a saved vector stores only their mean, so it is a list of one."""
        return [self.delta(name)]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor's delta."""
        return self.stored.shape(name)

    def low_rank(self, name: str) -> LowRank | None:
        """Return the factors of a delta that is stored as factors; None for any other delta."""
        from ..checkpoints.tensors import read_tensor_fp32

        if name not in self.stored.factors:
            return None
        factors = self.stored.factors[name]
        down, up = read_tensor_fp32(factors.down), read_tensor_fp32(factors.up)
        return LowRank(down, up, factors.scale, factors.transposed)

    def pieces(self, name: str, n_elements: int) -> Iterator[torch.Tensor]:
        """Yield a delta, flattened, in pieces of `n_elements`; each is valid until the next one is read."""
        import torch

        from ..checkpoints.tensors import pieces_of

        if name in self.stored.dense:
            for piece in stream_tensor(self.stored.dense[name], chunk_bytes=4 * n_elements):
                yield torch.frombuffer(piece, dtype=torch.float32)
        elif name in self.stored.sparse:
            reader = SparseReader(self.stored.sparse[name])
            buffer = np.empty(min(n_elements, reader.n_elements), np.float32)
            for at in range(0, reader.n_elements, n_elements):
                part = buffer[: reader.n_elements - at]
                reader.read(at, part)
                yield torch.from_numpy(part)
        else:
            yield from pieces_of(self.delta(name), n_elements)
