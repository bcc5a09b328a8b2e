"""Conversion between the raw bytes of a checkpoint and torch tensors."""

from collections.abc import Iterator

import numpy as np
import torch

from prosocial.core.errors import ArtefactError

from .folder import Checkpoint
from .header import TensorInfo
from .numbers import stream_fp32

PIECE_ELEMENTS = 1 << 18
FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """Return the raw bytes of a tensor; the view shares the tensor's memory if the tensor is contiguous."""
    return memoryview(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)


def pieces_of(tensor: torch.Tensor, n_elements: int = PIECE_ELEMENTS) -> Iterator[torch.Tensor]:
    """Yield a tensor's elements in order, as flat pieces of `n_elements`; the last piece may be shorter."""
    flat = tensor.flatten()
    for at in range(0, len(flat), n_elements):
        yield flat[at : at + n_elements]


def read_tensor_fp32(tensor: TensorInfo) -> torch.Tensor:
    """Return a stored F32, F16 or BF16 tensor as an fp32 tensor of its shape; the conversion is exact."""
    numbers, at = np.empty(tensor.n_elements, np.float32), 0
    for piece in stream_fp32(tensor):
        numbers[at : at + len(piece)] = piece
        at += len(piece)
    return torch.from_numpy(numbers).reshape(tensor.shape)


def read_fp32(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    """Return a tensor of a checkpoint as fp32; the conversion from F32, F16 or BF16 is exact.

    Raises:
        ArtefactError: there is no tensor of that name, or it has another dtype.
    """
    tensor = checkpoint.tensor(name)
    if tensor.dtype not in FLOATS:
        raise ArtefactError(
            f"{checkpoint.folder} should hold {name} as {', '.join(FLOATS)}, found {tensor.dtype}; save the model in "
            "one of these dtypes"
        )
    return read_tensor_fp32(tensor)
