"""Seeded noise that depends only on seed, key and position, not on batch, order, thread or engine."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SKIP_COST = 256  # numbers that a generator draws in the time of skipping to one
ELEMENTS_PER_COUNTER = 8  # Philox gives four 64-bit words for each counter value; each word gives two float32


class GumbelNoise:
    """One stream of Gumbel(0, 1) noise per row: `argmax(logits / T + noise)` samples from `softmax(logits / T)`.

    Two models that answer the same request with the same seed get the same noise (common random numbers). Their replies
    are then paired, which narrows the confidence interval of the difference between the models.

    Args:
        seed: seed of the run.
        row_keys: one text per row, such as the probe's id; equal keys get equal noise.

    Examples:
        >>> GumbelNoise(0, ["a", "b"]).draw(5).shape
        (2, 5)
    """

    def __init__(self, seed: int, row_keys: Sequence[str]) -> None:
        self._streams = [np.random.Generator(np.random.PCG64(entropy(seed, key))) for key in row_keys]

    def draw(self, size: int, rows: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Return [B, size] float32 noise for the given rows (by default all) and advance their streams."""
        chosen = range(len(self._streams)) if rows is None else rows
        return np.stack([self._streams[row].gumbel(size=size) for row in chosen]).astype(np.float32)

    def draw_at(self, size: int, row: int, places: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the elements at ascending places of what `draw(size, [row])` returns, without the others' cost.

        Examples:
            >>> few, all_ = (GumbelNoise(0, ["a"]) for _ in range(2))
            >>> bool(np.allclose(few.draw_at(9, 0, np.array([2, 7])), all_.draw(9)[0, [2, 7]]))
            True
        """
        stream = self._streams[row]
        if SKIP_COST * len(places) > size:
            uniform = stream.random(size)[places]
        else:
            uniform, source, after = np.empty(len(places)), stream.bit_generator, 0
            for index, place in enumerate(places.tolist()):
                source.advance(place - after)  # type: ignore[attr-defined]  # each element takes one 64-bit number
                uniform[index], after = stream.random(), place + 1
            source.advance(size - after)  # type: ignore[attr-defined]
        return -np.log(-np.log1p(-uniform)).astype(np.float32)


def uniform_noise(seed: int, key: str, n: int, *, start: int = 0) -> NDArray[np.float32]:
    """Return n uniform numbers in [0, 1) as float32: elements `start` to `start + n` of a random stream.

    The generator is counter-based (Philox 4x64, Salmon et al. 2011), so any part of a stream can be drawn without the
    part before it.

    Args:
        seed: seed of the stream.
        key: name of the stream, such as a tensor's name.
        n: number of elements.
        start: position of the first element in the stream.

    >>> bool((uniform_noise(0, "a", 8, start=3) == uniform_noise(0, "a", 11)[3:]).all())
    True
    """
    skipped = start % ELEMENTS_PER_COUNTER
    philox = np.random.Philox(key=entropy(seed, key), counter=start // ELEMENTS_PER_COUNTER)
    return np.random.Generator(philox).random(skipped + n, dtype=np.float32)[skipped:]


def entropy(seed: int, key: str) -> int:
    """Return a 128-bit integer derived from a seed and a key (the first half of their SHA-256)."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:16], "little")
