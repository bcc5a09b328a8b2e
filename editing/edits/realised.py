"""What an edit really did to a tensor, after rounding: bf16 swallows small changes."""

import math

import torch

from ..checkpoints.tensors import PIECE_ELEMENTS
from ..errors import InputError


class Realised:
    """Sums over one tensor, piece by piece, in float64.

    Args:
        coefficient: what the delta was multiplied with, above 0.
        buffers: [2, n] float64, for pieces of up to n elements; re-used by one tensor after the other.
    """

    def __init__(self, coefficient: float, buffers: torch.Tensor) -> None:
        self._coefficient = coefficient
        self._buffers = buffers
        self._n_moving = self._n_unchanged = 0
        self._along = self._delta_square = self._change_square = self._target_square = 0.0

    @staticmethod
    def new_buffers(n_elements: int = PIECE_ELEMENTS) -> torch.Tensor:
        """Return buffers for pieces of up to `n_elements`."""
        return torch.empty(2, n_elements, dtype=torch.float64)

    def add(self, target: torch.Tensor, out: torch.Tensor, delta: torch.Tensor) -> None:
        """Count one piece: elements of the target and of the result in their dtype, and the fp32 delta, [n] each."""
        first, second = self._buffers[:, : len(delta)]
        before = first.copy_(target)
        self._target_square += float(torch.dot(before, before))
        change = torch.sub(second.copy_(out), before, out=second)
        wanted = first.copy_(delta)
        self._along += float(torch.dot(change, wanted))
        self._delta_square += float(torch.dot(wanted, wanted))
        self._change_square += float(torch.dot(change, change))
        moving = delta != 0
        self._n_moving += int(moving.sum())
        self._n_unchanged += int((moving & (target == out)).sum())

    @property
    def finite(self) -> bool:
        """Whether all elements of target and result were finite: one that is not spoils the sums."""
        return math.isfinite(self._change_square)

    @property
    def inner_product(self) -> float:
        """<out - target, delta>: never above 0."""
        return self._along

    @property
    def gain(self) -> float | None:
        """Projection of the stored change on the asked one, over its length: 1 if nothing was lost."""
        return -self._along / (self._coefficient * self._delta_square) if self._n_moving else None

    @property
    def unchanged_share(self) -> float | None:
        """Share of the elements with a delta that rounding left as they were; None where no element has one."""
        return self._n_unchanged / self._n_moving if self._n_moving else None

    @property
    def relative_change(self) -> float | None:
        """Norm of the change over the norm of the tensor; None where that is zero."""
        return (self._change_square / self._target_square) ** 0.5 if self._target_square else None


def require_subtraction(inner_product: float) -> None:
    """Check that an edit moved against its vector.

    Raises:
        InputError: `<out - target, tau>` is above 0 or no number.
    """
    if not inner_product <= 0:
        raise InputError(
            f"an edit should move against the harm vector, <out - target, tau> <= 0, found {inner_product}: "
            "the files changed meanwhile, or memory is faulty; nothing was written"
        )
