"""What an edit really did to a tensor, after rounding: bf16 swallows small changes (torch-free)."""

import math
from dataclasses import dataclass

from prosocial.core.errors import InputError

from .piece import PieceSums


@dataclass
class Realised:
    """Sums over one tensor, piece by piece.

    Attributes:
        coefficient: what the delta was multiplied with, above 0.
        n_moving: number of elements with a delta.
        n_changed: number of elements whose stored value changed.
        along: <out - target, delta>.
        delta_square, change_square, target_square, error_square: squared norms of the delta, of the stored change, of
            the target, and of the stored change less the asked one.
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
        """Count a piece."""
        for name, value in sums._asdict().items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def finite(self) -> bool:
        """Whether all elements of target, delta and result were finite: one that is not spoils the sums."""
        return math.isfinite(self.change_square + self.target_square + self.delta_square)

    @property
    def inner_product(self) -> float:
        """<out - target, delta>: never above 0."""
        return self.along

    @property
    def gain(self) -> float | None:
        """Projection of the stored change on the asked one, over its length: 1 if nothing was lost."""
        return -self.along / (self.coefficient * self.delta_square) if self.delta_square else None

    @property
    def cosine(self) -> float | None:
        """Cosine between the stored change and the asked one; None where nothing changed."""
        size = math.sqrt(self.change_square) * math.sqrt(self.delta_square)
        return min(1.0, -self.along / size) if size else None

    @property
    def relative_error(self) -> float | None:
        """Norm of the stored change less the asked one, over the norm of the asked one."""
        asked = self.coefficient**2 * self.delta_square
        return math.sqrt(self.error_square / asked) if asked else None

    @property
    def unchanged_share(self) -> float | None:
        """Share of the elements with a delta that rounding left as they were; None where no element has one."""
        return max(0, self.n_moving - self.n_changed) / self.n_moving if self.n_moving else None

    @property
    def relative_change(self) -> float | None:
        """Norm of the change over the norm of the tensor; None where that is zero."""
        return math.sqrt(self.change_square / self.target_square) if self.target_square else None


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
