"""The gradients of several functions of a batch's results, in one backward pass.

No row of a batch reaches the result of another. One backward pass from the sum of the results therefore holds every
row's own gradient, and the gradient of a function of the results is their sum weighted by its derivatives. Only the
adapter's small matrices are spread over the rows, one layer at a time.
"""

from typing import Any

import torch
from torch import Tensor, nn


class RowJacobian:
    """A forward pass that tells its rows apart, and what the backward passes through it found.

    Attributes:
        rows: [n, *shape] by parameter: the gradients of n functions, added up over the backward passes.
    """

    def __init__(self) -> None:
        self.rows: dict[nn.Parameter, Tensor] = {}
        self._derivatives: Tensor | None = None

    def spread(self, parameter: nn.Parameter, n_rows: int) -> Tensor:
        """Return [B, *shape]: a view of the parameter for each row."""
        spread: Tensor = _Spread.apply(parameter, self, n_rows)  # type: ignore[no-untyped-call]
        return spread

    def backward(self, results: Tensor, derivatives: Tensor) -> None:
        """Add the gradients of n functions of a pass's results.

        Args:
            results: [B] one of each row.
            derivatives: [n, B] of each function by each result.
        """
        self._derivatives = derivatives
        try:
            results.sum().backward()  # type: ignore[no-untyped-call]
        finally:
            self._derivatives = None

    def add(self, parameter: nn.Parameter, by_row: Tensor) -> None:
        """Take the gradients [B, *shape] of the results by one parameter."""
        assert self._derivatives is not None, "a pass that tells its rows apart goes back through RowJacobian.backward"
        found = (self._derivatives.to(by_row) @ by_row.flatten(1)).view(-1, *parameter.shape)
        self.rows[parameter] = self.rows[parameter] + found if parameter in self.rows else found


class _Spread(torch.autograd.Function):
    """A parameter for each row on the way forward; on the way back each row's gradient goes to the Jacobian."""

    @staticmethod
    def forward(context: Any, parameter: nn.Parameter, jacobian: RowJacobian, n_rows: int) -> Tensor:
        context.parameter, context.jacobian = parameter, jacobian
        return parameter.expand(n_rows, *parameter.shape)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[None, None, None]:
        context.jacobian.add(context.parameter, gradients[0])
        return None, None, None
