"""Sparse storage of a delta: the places of the elements that are not zero, rising, and their values."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..checkpoints.header import TensorInfo
from ..checkpoints.tensors import pieces_of
from ..errors import ArtefactError
from .folder import Sparse

VALUE_BYTES = 4
INDEX_TYPES = {"I32": (torch.int32, 4), "I64": (torch.int64, 8)}
NUMPY_TYPES = {"I32": "<i4", "I64": "<i8", "F32": "<f4"}


def index_dtype(n_elements: int) -> str:
    """Return the safetensors dtype of places in a tensor of so many elements."""
    return "I32" if n_elements <= torch.iinfo(torch.int32).max else "I64"


def is_smaller(n_elements: int, n_zeros: int) -> bool:
    """Whether places and values take fewer bytes than all the elements.

    >>> is_smaller(100, 50), is_smaller(100, 51)
    (False, True)
    """
    _, index_bytes = INDEX_TYPES[index_dtype(n_elements)]
    return (n_elements - n_zeros) * (index_bytes + VALUE_BYTES) < n_elements * VALUE_BYTES


def split(delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the places [n] of the elements of a flattened fp32 delta that are not zero, and their values [n]."""
    flat = delta.flatten()
    indices = torch.from_numpy(np.flatnonzero(flat.numpy()))
    dtype, _ = INDEX_TYPES[index_dtype(len(flat))]
    return indices.to(dtype), flat[indices]


def read_pieces(stored: Sparse, n_elements: int) -> Iterator[torch.Tensor]:
    """Yield the delta, flattened, in dense pieces of `n_elements`; each is valid until the next one is asked for.

    The file is mapped into memory, so that only what a piece needs is read.

    Raises:
        ArtefactError: the indices do not rise, or one is outside the tensor.
    """
    n_total = math.prod(stored.shape)
    if not n_total or not stored.indices.n_elements:
        yield from pieces_of(torch.zeros(n_total), n_elements)
        return
    indices, values = _map(stored.indices), _map(stored.values)
    starts = range(0, n_total, n_elements)
    inner = np.searchsorted(indices, np.array(starts[1:], dtype=indices.dtype))
    bounds = [0, *map(int, inner), len(indices)]
    buffer = torch.empty(min(n_elements, n_total))
    for start, first, last in zip(starts, bounds, bounds[1:], strict=False):
        piece = buffer[: min(n_elements, n_total - start)].zero_()
        places = indices[first:last].astype(np.int64) - start
        if len(places) and (places[0] < 0 or places[-1] >= len(piece) or (np.diff(places) <= 0).any()):
            raise ArtefactError(
                f"{stored.indices.file} should hold rising {stored.indices.name} below {n_total}, found others: "
                "make the vector again"
            )
        piece[torch.from_numpy(places)] = torch.from_numpy(np.array(values[first:last]))
        yield piece


def _map(tensor: TensorInfo) -> NDArray[Any]:
    return np.memmap(tensor.file, NUMPY_TYPES[tensor.dtype], "r", offset=tensor.start, shape=(tensor.n_elements,))
