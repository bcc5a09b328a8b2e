"""The base checkpoint of harmful runs, and checkpoints that cache the digests of their tensors."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...checkpoints.digests import TensorDigest, combine, digest_tensor
from ...checkpoints.folder import Checkpoint
from ...checkpoints.numbers import dot, stream_fp32
from ...checkpoints.quantised import refuse_quantised
from .runs import Relation

if TYPE_CHECKING:
    import torch


class DigestedCheckpoint:
    """A checkpoint that caches the digests of its tensors.

    Attributes:
        checkpoint: the checkpoint.
        digests: digests of the tensors that were already hashed, by name.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.digests: dict[str, TensorDigest] = {}

    def fingerprint(self) -> str:
        """Return the fingerprint; tensors without a cached digest are hashed in several threads."""
        missing = [tensor for name, tensor in self.checkpoint.tensors.items() if name not in self.digests]
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            self.digests |= {digest.name: digest for digest in pool.map(digest_tensor, missing)}
        return combine(self.digests.values())


class Base(DigestedCheckpoint):
    """The checkpoint that harmful runs started from.

    Raises:
        ArtefactError: the checkpoint is quantised.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        refuse_quantised(checkpoint)
        super().__init__(checkpoint)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self.checkpoint.tensors[name].shape

    def read(self, name: str) -> "torch.Tensor":
        """Return a tensor as fp32."""
        from ...checkpoints.tensors import read_fp32

        return read_fp32(self.checkpoint, name)

    def relation(self, name: str, delta: NDArray[np.float32]) -> Relation:
        """Return the relation between a tensor b and b + delta, from the inner products <b, b>, <b, d> and <d, d>."""
        base_square, along, delta_square, at = 0.0, 0.0, 0.0, 0
        flat = delta.reshape(-1)
        for base in stream_fp32(self.checkpoint.tensors[name]):
            piece = flat[at : at + len(base)]
            base_square, along = base_square + dot(base, base), along + dot(base, piece)
            delta_square += dot(piece, piece)
            at += len(base)
        return Relation.of(base_square, base_square + along, max(0.0, base_square + 2 * along + delta_square))
