"""FAMO (Liu et al., arXiv 2306.03792): loss weights that equalise the rate of decrease, from the losses only."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from prosocial.core.errors import MissingExtraError

from .conflict import weighted_after

History = list[list[list[float]]]


class Famo:
    """torchjd's FAMO, combined with a preference.

    Attributes:
        history: losses [k] before and after each step; replaying them restores the weights.

    Raises:
        MissingExtraError: torchjd is not installed.
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
        """Return the weights v [k] of the losses' gradients, from losses [k], all above 0, and a preference [k]."""
        values = losses.detach().requires_grad_()
        (own,) = torch.autograd.grad(self._scalarizer(values), values)
        return weighted_after(own, preference)

    def update(self, before: Tensor, after: Tensor) -> None:
        """Update FAMO's weights from the losses [k] of one batch before and after a step."""
        self._scalarizer(before.detach())
        self._scalarizer.update(after.detach())
        self.history.append([before.tolist(), after.tolist()])
