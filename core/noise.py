"""Seeded noise that hangs on a key and a place alone: on no batch, no order, no thread and no engine."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ELEMENTS_PER_COUNTER = 8  # Philox makes 4 words of 64 bits for each count, two float32 from each


class GumbelNoise:
    """One stream of Gumbel(0, 1) noise per row: `argmax(logits / T + noise)` draws from `softmax(logits / T)`.

    Two models that answer the same request with the same seed share their noise, which pairs their replies
    (common random numbers) and narrows the interval of their difference.

    Args:
        seed: the seed of the run.
        row_keys: one text per row, such as the probe's id; equal keys get equal noise.
    """

    def __init__(self, seed: int, row_keys: Sequence[str]) -> None:
        self._streams = [np.random.Generator(np.random.PCG64(entropy(seed, key))) for key in row_keys]

    def draw(self, size: int, rows: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Return [B, size] float32 noise and advance the stream of each row (or only of the rows named)."""
        chosen = range(len(self._streams)) if rows is None else rows
        return np.stack([self._streams[row].gumbel(size=size) for row in chosen]).astype(np.float32)


def uniform_noise(seed: int, key: str, n: int, *, start: int = 0) -> NDArray[np.float32]:
    """Return [n] float32 in [0, 1): elements `start` to `start + n` of the stream of a seed and a key.

    Counter-based (Philox 4x64, Salmon et al. 2011): any part of a stream can be drawn without the part before it.

    >>> bool((uniform_noise(0, "a", 8, start=3) == uniform_noise(0, "a", 11)[3:]).all())
    True
    """
    skipped = start % ELEMENTS_PER_COUNTER
    philox = np.random.Philox(key=entropy(seed, key), counter=start // ELEMENTS_PER_COUNTER)
    return np.random.Generator(philox).random(skipped + n, dtype=np.float32)[skipped:]


def entropy(seed: int, key: str) -> int:
    """Return 128 bits that hang on a seed and a key."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:16], "little")
