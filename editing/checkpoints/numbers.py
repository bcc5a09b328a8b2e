"""Conversion of stored tensors to fp32, piece by piece, and inner products of fp32 arrays (torch-free)."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .digests import stream_tensor
from .header import TensorInfo

PIECE_ELEMENTS = 1 << 16  # for several numpy passes over a piece: its buffers stay in the cache of a core
LOOP_ELEMENTS = 1 << 18  # for one pass in C: hashing and system calls are faster with longer pieces
STORED: dict[str, Any] = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}  # BF16 as its bits
HIGH_BITS = np.uint32(16)
SAFE_SUMS = (1e-25, 1e30)  # outside this range, squares in fp32 may have underflowed or overflowed


def widen(stored: NDArray[Any], out: NDArray[np.float32]) -> None:
    """Convert stored elements to fp32 exactly; uint16 stands for the bits of BF16.

    Args:
        stored: [n] fp32, fp16, or uint16 for BF16.
        out: [n] fp32, output.
    """
    if stored.dtype == np.uint16:
        np.left_shift(stored, HIGH_BITS, out=out.view(np.uint32), dtype=np.uint32)
    else:
        np.copyto(out, stored)


def stream_fp32(tensor: TensorInfo) -> Iterator[NDArray[np.float32]]:
    """Yield a stored F32, F16 or BF16 tensor as flat fp32 pieces; each is valid until the next one is read."""
    dtype = STORED[tensor.dtype]
    buffer = np.empty(min(PIECE_ELEMENTS, tensor.n_elements), np.float32)
    for raw in stream_tensor(tensor, chunk_bytes=PIECE_ELEMENTS * np.dtype(dtype).itemsize):
        stored = np.frombuffer(raw, dtype)
        piece = buffer[: len(stored)]
        widen(stored, piece)
        yield piece


def dot(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    """Return the inner product of two fp32 arrays [n], accurate to about seven digits for any range of values.

    >>> dot(np.full(3, 2.0, np.float32), np.full(3, 0.5, np.float32))
    3.0
    """
    starts = range(0, len(left), PIECE_ELEMENTS)  # sums within a piece are fp32, the sum of pieces is float64
    with np.errstate(all="ignore"):
        total = sum(float(np.dot(left[at : at + PIECE_ELEMENTS], right[at : at + PIECE_ELEMENTS])) for at in starts)
    if SAFE_SUMS[0] < abs(total) < SAFE_SUMS[1]:
        return total
    return float(np.dot(left.astype(np.float64), right.astype(np.float64)))


_own = threading.local()


def buffer(n_elements: int) -> NDArray[np.float32]:
    """Return a buffer [n] fp32 of this thread; each call returns the same memory again."""
    held = getattr(_own, "buffer", None)
    if held is None or len(held) < n_elements:
        held = _own.buffer = np.empty(n_elements, np.float32)
    part: NDArray[np.float32] = held[:n_elements]
    return part
