"""FAMO (Liu et al., arXiv 2306.03792): weights that let every loss fall at an equal rate, from the losses alone."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from prosocial.core.errors import MissingExtraError

from .conflict import weighted_after

History = list[list[list[float]]]


class Famo:
    """torchjd's FAMO under a preference.

    Attributes:
        history: the losses [k] before and after every step so far; replayed, they give the same weights again.
    """

    def __init__(self, n_losses: int, history: Sequence[Sequence[Sequence[float]]] = ()) -> None:
        try:
            from torchjd.scalarization import FAMO
        except ImportError:
            raise MissingExtraError("torchjd", "train") from None
        self._scalarizer: Any = FAMO(n_losses)
        self.history: History = []
        for before, after in history:
            self.update(torch.tensor(before), torch.tensor(after))

    def combination(self, losses: Tensor, preference: Tensor) -> Tensor:
        """Return [k] v, the weights of the losses' gradients in the step, from losses [k] above 0."""
        values = losses.detach().requires_grad_()
        (own,) = torch.autograd.grad(self._scalarizer(values), values)
        return weighted_after(own, preference)

    def update(self, before: Tensor, after: Tensor) -> None:
        """Learn from the losses [k] of one batch before and after the step."""
        self._scalarizer(before.detach())
        self._scalarizer.update(after.detach())
        self.history.append([before.tolist(), after.tolist()])
