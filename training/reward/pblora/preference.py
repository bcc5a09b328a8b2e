"""Preferences over attributes, and the context that holds the current batch's."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from threading import get_ident

import torch
from torch import Tensor, nn

from prosocial.core.errors import InputError
from prosocial.core.preferences import simplex_weights

from .row_jacobian import RowJacobian

TOLERANCE = 1e-4  # for the sum of a preference, which should be 1


def preference_vector(weights: Mapping[str, float], attributes: Sequence[str]) -> Tensor:
    """Return the preference [k] on the simplex from weights by name, scaled to sum to 1; a missing attribute gets 0.

    Raises:
        UnknownNameError: a name is not an attribute.
        InputError: a weight is negative or not finite, or all weights are 0.

    Examples:
        >>> preference_vector({"empathy": 3, "helpfulness": 1}, ["empathy", "helpfulness"]).tolist()
        [0.75, 0.25]
    """
    return torch.tensor(simplex_weights(weights, attributes))


def require_preferences(preference: Tensor, attributes: Sequence[str]) -> None:
    """Check that each row of preferences [B, k] is on the simplex or all zeros (adapter off).

    Raises:
        InputError: the shape differs, a weight is negative or not finite, or a row sums to neither 1 nor 0.
    """
    if preference.ndim != 2 or preference.shape[1] != len(attributes):
        raise InputError(
            f"preferences should have shape [rows, {len(attributes)}] for {', '.join(attributes)}, "
            f"found {list(preference.shape)}"
        )
    sums = preference.sum(-1)
    on_simplex = (sums - 1).abs().le(TOLERANCE) | sums.eq(0)
    good = on_simplex & preference.ge(0).all(-1)  # a comparison with NaN is False
    if not good.all():
        row = int(good.logical_not().nonzero()[0])
        actual = [round(value, 4) for value in preference[row].tolist()]
        raise InputError(f"weights should be at least 0 and add up to 1, or all be 0, found {actual} in row {row}")


class PreferenceContext:
    """The preferences that the adapted layers of a model currently follow; one thread at a time may set them.

    Attributes:
        value: [B, k], preferences of the current batch; None turns every adapter off.
        jacobian: accumulates the gradients of each row; None if they are not needed.
    """

    def __init__(self) -> None:
        self.value: Tensor | None = None
        self.jacobian: RowJacobian | None = None
        self._held: dict[str, tuple[int, object]] = {}  # by one thread; a lock could not be copied with the model

    @contextlib.contextmanager
    def use(self, preference: Tensor | None) -> Iterator[None]:
        """Set the preferences inside a `with` block.

        Raises:
            InputError: another thread is inside such a block.
        """
        mark = object()
        thread, outermost = self._held.setdefault("by", (get_ident(), mark))
        if thread != get_ident():
            raise InputError("a reward model should be used by one thread at a time: load one for each thread")
        before, self.value = self.value, preference
        try:
            yield
        finally:
            self.value = before
            if outermost is mark:
                del self._held["by"]

    @contextlib.contextmanager
    def tell_rows_apart(self) -> Iterator[RowJacobian]:
        """Compute the gradients of each row separately inside a `with` block."""
        self.jacobian = RowJacobian()
        try:
            yield self.jacobian
        finally:
            self.jacobian = None

    def spread(self, parameter: nn.Parameter, n_rows: int) -> Tensor:
        """Return the parameter itself, or [B, *shape] with one copy per row inside `tell_rows_apart`."""
        return parameter if self.jacobian is None else self.jacobian.spread(parameter, n_rows)
