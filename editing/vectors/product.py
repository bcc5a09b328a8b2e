"""The product of low-rank factors in fp32 (torch-free): one arithmetic for making, editing and auditing.

numpy and torch sum over the rank in the same order up to a rank of about 128, so the product then has the bits that
peft's merge gives; a larger rank, or a matrix of one row or column, can differ in the last bit.
"""

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.digests import stream_tensor
from ..checkpoints.header import TensorInfo
from .folder import Factors

Array = NDArray[np.float32]


def multiply_factors(down: Array, up: Array, scale: float, *, transposed: bool) -> Array:
    """Return scale * (up @ down) or its transpose, with the same order of operations as peft.

    Args:
        down: A, [rank, n] fp32.
        up: B, [m, rank] fp32.
        scale: scale of the product.
        transposed: return the transpose, [n, m] instead of [m, n].

    >>> multiply_factors(np.float32([[1, 2]]), np.float32([[3], [4]]), 0.5, transposed=False).tolist()
    [[1.5, 3.0], [2.0, 4.0]]
    """
    with np.errstate(all="ignore"):  # callers check for results that are not finite
        product: Array = np.ascontiguousarray(up) @ np.ascontiguousarray(down)
        product *= np.float32(scale)
    return np.ascontiguousarray(product.T) if transposed else product


def read_product(factors: Factors) -> Array:
    """Return the delta that two stored factors stand for."""
    down, up = _read(factors.down), _read(factors.up)
    return multiply_factors(down, up, factors.scale, transposed=factors.transposed)


def _read(tensor: TensorInfo) -> Array:
    raw = b"".join(map(bytes, stream_tensor(tensor)))
    return np.frombuffer(raw, "<f4").reshape(tensor.shape)
