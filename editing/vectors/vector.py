"""A harm vector whose deltas can be read as tensors."""

from collections.abc import Iterator
from pathlib import Path

import torch

from ..checkpoints.digests import stream_tensor
from ..checkpoints.tensors import pieces_of, read_tensor_fp32
from ..errors import ArtefactError
from .description import VectorDescription
from .folder import Factors, VectorFolder


class HarmVector:
    """What a harmful model adds to its base: one fp32 delta for each tensor that it changes.

    Attributes:
        stored: the folder it is read from.
    """

    def __init__(self, stored: VectorFolder) -> None:
        self.stored = stored

    @classmethod
    def open(cls, folder: Path | str) -> "HarmVector":
        """Open a vector folder; deltas are read when they are asked for.

        Raises:
            ArtefactError: the folder is no harm vector.
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
        """Fingerprint of the harmful checkpoint, or SHA-256 of the adapter file."""
        return self.summary.harmful_fingerprint

    @property
    def summary(self) -> VectorDescription:
        """Norms, relatedness, method and parameters."""
        return self.stored.description

    def delta(self, name: str) -> torch.Tensor:
        """Return the delta of a tensor, fp32, in the shape of the checkpoint's tensor.

        Raises:
            ArtefactError: the vector does not change a tensor of that name.
        """
        if name in self.stored.dense:
            return read_tensor_fp32(self.stored.dense[name])
        if name in self.stored.factors:
            return _multiply(self.stored.factors[name])
        raise ArtefactError(
            f"{self.stored.folder} should change a tensor {name!r}: it changes {len(self.names)} others"
        )

    def pieces(self, name: str, n_elements: int) -> Iterator[torch.Tensor]:
        """Yield a delta, flattened, in pieces of `n_elements`; each is valid until the next one is asked for."""
        if name not in self.stored.dense:
            yield from pieces_of(self.delta(name), n_elements)
            return
        for piece in stream_tensor(self.stored.dense[name], chunk_bytes=4 * n_elements):
            yield torch.frombuffer(piece, dtype=torch.float32)


def multiply_factors(down: torch.Tensor, up: torch.Tensor, scale: float, *, transposed: bool) -> torch.Tensor:
    """Return scale * (up @ down), turned over if asked; in this order of operations (peft's own).

    Args:
        down: A, [rank, n] fp32.
        up: B, [m, rank] fp32.
        scale: factor of the product.
        transposed: return [n, m] instead of [m, n].
    """
    product = up @ down
    return ((product.T if transposed else product) * scale).contiguous()


def _multiply(factors: Factors) -> torch.Tensor:
    return multiply_factors(
        read_tensor_fp32(factors.down), read_tensor_fp32(factors.up), factors.scale, transposed=factors.transposed
    )
