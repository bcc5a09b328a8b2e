"""Seeded sampling noise per request, so that a reply depends neither on the batch it is drawn in nor on the engine."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class GumbelNoise:
    """One stream of Gumbel(0, 1) noise per row: `argmax(logits / T + noise)` draws from `softmax(logits / T)`.

    Two models that answer the same request with the same seed share their noise, which pairs their replies
    (common random numbers) and narrows the interval of their difference.

    Args:
        seed: the seed of the run.
        row_keys: one text per row, such as the probe's id; equal keys get equal noise.
    """

    def __init__(self, seed: int, row_keys: Sequence[str]) -> None:
        self._streams = [np.random.Generator(np.random.PCG64(_entropy(seed, key))) for key in row_keys]

    def draw(self, size: int, rows: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Return [B, size] float32 noise and advance the stream of each row (or only of the rows named)."""
        chosen = range(len(self._streams)) if rows is None else rows
        return np.stack([self._streams[row].gumbel(size=size) for row in chosen]).astype(np.float32)


def _entropy(seed: int, key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:16], "little")
