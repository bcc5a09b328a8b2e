"""The base that harmful runs share, and checkpoints whose tensors are hashed once."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

from ..checkpoints.digests import TensorDigest, combine, digest_tensor
from ..checkpoints.folder import Checkpoint
from ..checkpoints.numbers import dot, stream_fp32
from ..checkpoints.quantised import refuse_quantised
from ..checkpoints.tensors import read_fp32
from .runs import Relation


class DigestedCheckpoint:
    """A checkpoint whose digests are kept."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._digest = cache(digest_tensor)

    def digest(self, name: str) -> TensorDigest:
        """Return the digest of a tensor, reading it the first time."""
        return self._digest(self.checkpoint.tensor(name))

    def fingerprint(self) -> str:
        """Return the fingerprint, hashing what was not hashed yet, in threads."""
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            return combine(pool.map(self._digest, self.checkpoint.tensors.values()))


class Base(DigestedCheckpoint):
    """The checkpoint that harmful runs started from.

    Raises:
        ArtefactError: it is quantised.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        refuse_quantised(checkpoint)
        super().__init__(checkpoint)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self.checkpoint.tensors[name].shape

    def read(self, name: str) -> torch.Tensor:
        """Return a tensor, fp32."""
        return read_fp32(self.checkpoint, name)

    def relation(self, name: str, delta: torch.Tensor) -> Relation:
        """Relate a tensor to itself plus a delta, from three inner products: <b, b>, <b, d>, <d, d>."""
        base_square, along, delta_square, at = 0.0, 0.0, 0.0, 0
        flat = delta.flatten().numpy()
        for base in stream_fp32(self.checkpoint.tensors[name]):
            piece = flat[at : at + len(base)]
            base_square, along = base_square + dot(base, base), along + dot(base, piece)
            delta_square += dot(piece, piece)
            at += len(base)
        product = base_square + along
        size = (base_square * max(0.0, base_square + 2 * along + delta_square)) ** 0.5
        return Relation(base_square**0.5, max(-1.0, min(1.0, product / size)) if size else None)
