"""The numbers of a tensor in a GGUF file, dequantised by the library `gguf`."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .header import GgufHeader, GgufTensor, gguf_library

PIECE = 1 << 22  # elements that are computed at once
Values = npt.NDArray[np.float32]


def require_known_types(header: GgufHeader) -> None:
    """Check that every type in a file can be dequantised.

    Raises:
        ArtefactError: the library `gguf` cannot dequantise one (the message names a tensor).
    """
    library = gguf_library()
    for tensor in {tensor.kind: tensor for tensor in header.tensors.values()}.values():
        kind = library.GGMLQuantizationType[tensor.kind]
        try:
            _numbers(np.zeros((1, library.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
        except NotImplementedError:
            name = f"{tensor.name!r:.80} in {tensor.kind}"
            raise header.broken("types that the library gguf dequantises", name) from None


def dequantised(header: GgufHeader, tensor: GgufTensor) -> Values:
    """Return a tensor as float32; beside it, only a piece is held in memory."""
    kind = gguf_library().GGMLQuantizationType[tensor.kind]
    n_rows = math.prod(tensor.shape[:-1])
    stored = np.memmap(header.file, np.uint8, "r", tensor.start, (n_rows, tensor.size_bytes // n_rows))
    values = np.empty((n_rows, tensor.shape[-1]), np.float32)
    step = max(1, PIECE // tensor.shape[-1])
    for start in range(0, n_rows, step):
        values[start : start + step] = _numbers(stored[start : start + step], kind)
    return values.reshape(tensor.shape)


def _numbers(stored: npt.NDArray[np.uint8], kind: Any) -> Values:
    with np.errstate(all="ignore"):  # what is not finite is refused when it is written
        numbers: Values = gguf_library().quants.dequantize(stored, kind)
    return numbers
