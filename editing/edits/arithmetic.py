"""The arithmetic of an edit, shared by edit, undo and audit (torch-free).

x = fl32(c * d); out = round(fl32(target - x)): two roundings in fp32, no fused multiply-add, then one rounding to the
checkpoint's dtype (which changes nothing for F32). Both roundings are monotone, so that `(out - target) * d <= 0` holds
for every element.
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
    """Subtracts piece by piece in buffers that are re-used.

    Args:
        dtype: of the checkpoint's tensor: F32, F16 or BF16.
        n_elements: length of the longest piece.
        rounding: to nearest, or stochastic; a stochastic one belongs to one tensor.

    Attributes:
        target, product, out: the last piece in fp32: before, what was subtracted, and as stored.
        stored: the last piece in the checkpoint's dtype.
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
            coefficient: a number of fp32, at least 0.
            key: the tensor's name, which stochastic rounding draws by.
            at: place of the piece in its tensor, a multiple of 16.
        """
        n = len(target)
        self.target, self.product, self.out = self._buffers[:, :n]
        self.stored = self._stored[:n]
        with np.errstate(all="ignore"):  # a result that is not finite is found afterwards
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
        dtype: of the checkpoint's tensor.
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
            coefficient: a number of fp32, at least 0.
        """
        import torch

        out = self._subtraction.apply(target.view(self._bits).numpy(), delta.numpy(), coefficient)
        return torch.from_numpy(out).view(self._dtype)
