"""The arithmetic of an edit, shared by edit, undo and audit (torch-free).

x = fl32(c * d); out = round(fl32(target - x)): two fp32 operations without fused multiply-add, then one rounding to the
checkpoint's dtype (which changes nothing for F32). Rounding is monotone, so `(out - target) * d <= 0` holds for every
element.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.numbers import PIECE_ELEMENTS, STORED, widen
from .rounding import NEAREST, Rounding, round_nearest, round_stochastic

if TYPE_CHECKING:
    import torch

ARITHMETIC: dict[str, str | bool | int] = {
    "compute_dtype": "float32",
    "rule": "out = round(fl32(target - fl32(c * d)))",
    "fused_multiply_add": False,
    "coefficient": "rounded to float32 before use",
    "other_tensors": "copied byte for byte",
}


class PieceSubtraction:
    """Subtracts a scaled delta from a tensor, piece by piece, in buffers that are re-used.

    Args:
        dtype: dtype of the checkpoint's tensor: F32, F16 or BF16.
        n_elements: length of the longest piece.
        rounding: rounding mode of the result.

    Attributes:
        target: the last piece of the target in fp32.
        product: the last piece of coefficient * delta in fp32.
        out: the last piece of the result after rounding, in fp32.
        stored: the same piece in the checkpoint's dtype.
    """

    def __init__(self, dtype: str, n_elements: int = PIECE_ELEMENTS, rounding: Rounding = NEAREST) -> None:
        self.dtype, self.rounding = dtype, rounding
        self._buffers = np.empty((3, n_elements), np.float32)
        self._scratch = np.empty(n_elements, np.uint32)
        self._stored = np.empty(n_elements, STORED[dtype])
        self.target, self.product, self.out = self._buffers
        self.stored: NDArray[Any] = self._stored

    def apply(
        self, target: NDArray[Any], delta: NDArray[np.float32], coefficient: float, *, key: str = "", at: int = 0
    ) -> NDArray[Any]:
        """Return the edited piece, valid until the next call.

        Args:
            target: [n] as stored, BF16 as uint16.
            delta: [n] fp32.
            coefficient: coefficient of the delta, representable in fp32, at least 0.
            key: name of the tensor, which selects the noise of stochastic rounding.
            at: index of the piece's first element in its tensor, a multiple of 16.
        """
        n = len(target)
        self.target, self.product, self.out = self._buffers[:, :n]
        self.stored = self._stored[:n]
        with np.errstate(all="ignore"):  # the caller checks for results that are not finite
            widen(target, self.target)
            np.multiply(delta, np.float32(coefficient), out=self.product)
            np.subtract(self.target, self.product, out=self.out)
            if self.rounding.stochastic:
                round_stochastic(self.out, self.stored, self.rounding.noise(key, at, n))
            else:
                round_nearest(self.out, self.stored, self._scratch[:n])
        return self.stored


class Subtraction:
    """The same arithmetic for torch tensors on the CPU.

    Args:
        dtype: dtype of the checkpoint's tensor: float32, float16 or bfloat16.
        n_elements: length of the longest piece.

    >>> import torch
    >>> subtraction = Subtraction(torch.bfloat16)
    >>> subtraction.apply(torch.ones(2, dtype=torch.bfloat16), torch.ones(2), 0.5).tolist()
    [0.5, 0.5]
    """

    def __init__(self, dtype: torch.dtype, n_elements: int = PIECE_ELEMENTS) -> None:
        import torch

        names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
        self._dtype = dtype
        self._bits = torch.uint16 if dtype == torch.bfloat16 else dtype
        self._subtraction = PieceSubtraction(names[dtype], n_elements)

    def apply(self, target: torch.Tensor, delta: torch.Tensor, coefficient: float) -> torch.Tensor:
        """Return the edited piece, valid until the next call.

        Args:
            target: [n] in the checkpoint's dtype.
            delta: [n] fp32.
            coefficient: coefficient of the delta, representable in fp32, at least 0.
        """
        import torch

        out = self._subtraction.apply(target.view(self._bits).numpy(), delta.numpy(), coefficient)
        return torch.from_numpy(out).view(self._dtype)
