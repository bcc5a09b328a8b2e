"""Preferences over named attributes, and the one that a model in flight follows."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from prosocial.core.errors import InputError
from prosocial.core.preferences import simplex_weights

from .row_jacobian import RowJacobian

TOLERANCE = 1e-4  # of a sum that should be 1


def preference_vector(weights: Mapping[str, float], attributes: Sequence[str]) -> Tensor:
    """Return [k] weights on the simplex from weights by name, scaled to a sum of 1; names left out weigh 0.

    Raises:
        UnknownNameError: a name is not among the attributes.
        InputError: a weight is negative or not finite, or all are 0.

    Example:
        >>> preference_vector({"empathy": 3, "helpfulness": 1}, ["empathy", "helpfulness"]).tolist()
        [0.75, 0.25]
    """
    return torch.tensor(simplex_weights(weights, attributes))


def require_preferences(preference: Tensor, attributes: Sequence[str]) -> None:
    """Check that rows [B, k] lie on the simplex, or are zeros (no preference: unadapted).

    Raises:
        InputError: another shape, a weight that is negative or not finite, or a sum that is neither 1 nor 0.
    """
    if preference.ndim != 2 or preference.shape[1] != len(attributes):
        raise InputError(
            f"preferences should have shape [rows, {len(attributes)}] for {', '.join(attributes)}, "
            f"found {list(preference.shape)}"
        )
    sums = preference.sum(-1)
    on_simplex = (sums - 1).abs().le(TOLERANCE) | sums.eq(0)
    good = on_simplex & preference.ge(0).all(-1)  # NaN compares false
    if not good.all():
        row = int(good.logical_not().nonzero()[0])
        found = [round(value, 4) for value in preference[row].tolist()]
        raise InputError(f"weights should be at least 0 and add up to 1, or all be 0, found {found} in row {row}")


class PreferenceContext:
    """The preferences [B, k] of the batch that is in flight; None switches every adapter off.

    Attributes:
        jacobian: takes the rows' own gradients, where they are asked for.
    """

    def __init__(self) -> None:
        self.value: Tensor | None = None
        self.jacobian: RowJacobian | None = None

    @contextlib.contextmanager
    def use(self, preference: Tensor | None) -> Iterator[None]:
        """Set the batch's preferences for the duration of a block."""
        before, self.value = self.value, preference
        try:
            yield
        finally:
            self.value = before

    @contextlib.contextmanager
    def tell_rows_apart(self) -> Iterator[RowJacobian]:
        """Let the passes of a block keep the rows' gradients apart."""
        self.jacobian = RowJacobian()
        try:
            yield self.jacobian
        finally:
            self.jacobian = None

    def spread(self, parameter: nn.Parameter, n_rows: int) -> Tensor:
        """Return the parameter, one for all rows or, while they are told apart, [B, *shape]."""
        return parameter if self.jacobian is None else self.jacobian.spread(parameter, n_rows)
