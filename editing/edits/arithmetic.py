"""The arithmetic of an edit, shared by edit, undo and audit.

x = fl32(c * d); out = RNE(fl32(target - x)): two roundings in fp32, no fused multiply-add, then one rounding to
nearest, ties to even, to the checkpoint's dtype (which changes nothing for F32).
"""

import torch

from ..checkpoints.tensors import PIECE_ELEMENTS

ARITHMETIC: dict[str, str | bool] = {
    "compute_dtype": "float32",
    "rule": "out = round(fl32(target - fl32(c * d)))",
    "rounding": "nearest, ties to even, once, to the target's dtype",
    "fused_multiply_add": False,
    "coefficient": "rounded to float32 before use",
    "other_tensors": "copied byte for byte",
}


class Subtraction:
    """Subtracts piece by piece in fp32 buffers that are re-used.

    Args:
        dtype: of the checkpoint's tensor.
        n_elements: length of the longest piece.

    >>> subtraction = Subtraction(torch.bfloat16)
    >>> subtraction.apply(torch.ones(2, dtype=torch.bfloat16), torch.ones(2), 0.5).tolist()
    [0.5, 0.5]
    """

    def __init__(self, dtype: torch.dtype, n_elements: int = PIECE_ELEMENTS) -> None:
        self._product = torch.empty(n_elements)
        self._difference = torch.empty(n_elements)
        self._rounded = torch.empty(n_elements, dtype=dtype)

    def apply(self, target: torch.Tensor, delta: torch.Tensor, coefficient: float) -> torch.Tensor:
        """Return the edited piece, valid until the next call.

        Args:
            target: [n] in the checkpoint's dtype.
            delta: [n] fp32.
            coefficient: a number of fp32, at least 0.
        """
        n = len(target)
        product = torch.mul(delta, coefficient, out=self._product[:n])
        difference = self._difference[:n].copy_(target)
        torch.sub(difference, product, out=difference)
        return self._rounded[:n].copy_(difference)
