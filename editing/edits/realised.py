"""The change of a tensor that is left after rounding, compared with the requested one (torch-free).

In bf16, rounding to nearest discards small changes.
"""

import math
from dataclasses import dataclass

from prosocial.core.errors import InputError

from .piece import PieceSums


@dataclass
class Realised:
    """Sums over the pieces of one edited tensor.

    The requested change is -coefficient * delta; the stored change is out - target, after rounding.

    Attributes:
        coefficient: coefficient of the delta, above 0.
        n_moving: number of elements whose delta is not zero.
        n_changed: number of elements whose stored value changed.
        along: inner product <out - target, delta>.
        delta_square: squared norm of the delta.
        change_square: squared norm of the stored change.
        target_square: squared norm of the target.
        error_square: squared norm of the stored change minus the requested one.
    """

    coefficient: float
    n_moving: int = 0
    n_changed: int = 0
    along: float = 0.0
    delta_square: float = 0.0
    change_square: float = 0.0
    target_square: float = 0.0
    error_square: float = 0.0

    def add(self, sums: PieceSums) -> None:
        """Add the sums of a piece."""
        for name, value in sums._asdict().items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def finite(self) -> bool:
        """Whether all elements of target, delta and result were finite; otherwise one of the sums is not."""
        return math.isfinite(self.change_square + self.target_square + self.delta_square)

    @property
    def inner_product(self) -> float:
        """Inner product <out - target, delta>, never above 0."""
        return self.along

    @property
    def gain(self) -> float | None:
        """Projection of the stored change on the requested one, relative to its length; 1 if rounding lost nothing."""
        return -self.along / (self.coefficient * self.delta_square) if self.delta_square else None

    @property
    def cosine(self) -> float | None:
        """Cosine between the stored change and the requested one; None if nothing changed."""
        size = math.sqrt(self.change_square) * math.sqrt(self.delta_square)
        return min(1.0, -self.along / size) if size else None

    @property
    def relative_error(self) -> float | None:
        """Norm of the stored change minus the requested one, divided by the norm of the requested one."""
        requested = self.coefficient**2 * self.delta_square
        return math.sqrt(self.error_square / requested) if requested else None

    @property
    def unchanged_share(self) -> float | None:
        """Share of the elements with a non-zero delta that rounding left unchanged; None if all deltas are zero."""
        return max(0, self.n_moving - self.n_changed) / self.n_moving if self.n_moving else None

    @property
    def relative_change(self) -> float | None:
        """Norm of the stored change divided by the norm of the target; None if that is zero."""
        return math.sqrt(self.change_square / self.target_square) if self.target_square else None


def require_subtraction(inner_product: float) -> None:
    """Check that an edit moved the weights against its vector.

    Raises:
        InputError: `<out - target, tau>` is above 0 or NaN.
    """
    if not inner_product <= 0:
        raise InputError(
            f"an edit should move against the harm vector, <out - target, tau> <= 0, found {inner_product}: "
            "the files changed in the meantime, or memory is faulty; nothing was written, try again"
        )
