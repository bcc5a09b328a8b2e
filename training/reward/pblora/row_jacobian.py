"""Gradients of several functions of a batch's results in one backward pass.

The result of a row does not depend on other rows. One backward pass from the sum of the results therefore yields the
gradient of each result, if every row has its own copy of the parameters. By the chain rule, the gradient of a function
of the results is the sum of these gradients, weighted by its derivatives. Only the adapter's small matrices are copied,
one layer at a time.
"""

from typing import Any

import torch
from torch import Tensor, nn


class RowJacobian:
    """Accumulates the gradients of n functions of a batch's results.

    Attributes:
        rows: gradients [n, *shape] by parameter, summed over the backward passes.
    """

    def __init__(self) -> None:
        self.rows: dict[nn.Parameter, Tensor] = {}
        self._derivatives: Tensor | None = None

    def spread(self, parameter: nn.Parameter, n_rows: int) -> Tensor:
        """Return a view [B, *shape] of the parameter with one copy per row."""
        spread: Tensor = _Spread.apply(parameter, self, n_rows)  # type: ignore[no-untyped-call]
        return spread

    def backward(self, results: Tensor, derivatives: Tensor) -> None:
        """Run a backward pass and add the gradients of n functions of the results.

        Args:
            results: [B], one result per row.
            derivatives: [n, B], derivative of each function with respect to each result.
        """
        self._derivatives = derivatives
        try:
            results.sum().backward()  # type: ignore[no-untyped-call]
        finally:
            self._derivatives = None

    def add(self, parameter: nn.Parameter, by_row: Tensor) -> None:
        """Add one parameter's share, from the gradients [B, *shape] of the results with respect to it."""
        assert self._derivatives is not None, "inside tell_rows_apart, call RowJacobian.backward, not Tensor.backward"
        gradients = (self._derivatives.to(by_row) @ by_row.flatten(1)).view(-1, *parameter.shape)
        self.rows[parameter] = self.rows[parameter] + gradients if parameter in self.rows else gradients


class _Spread(torch.autograd.Function):
    """Forward: copy a parameter for each row. Backward: pass the gradient of each copy to the Jacobian."""

    @staticmethod
    def forward(context: Any, parameter: nn.Parameter, jacobian: RowJacobian, n_rows: int) -> Tensor:
        context.parameter, context.jacobian = parameter, jacobian
        return parameter.expand(n_rows, *parameter.shape)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[None, None, None]:
        context.jacobian.add(context.parameter, gradients[0])
        return None, None, None
