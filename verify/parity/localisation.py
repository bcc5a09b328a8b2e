"""The first point in a forward pass at which a bundle differs from its reference."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosocial.evaluation.statistics.interval import scientific

Points = Mapping[str, NDArray[np.float32]]
TOLERANCE = 1e-4  # relative to the largest number at the point, for float32 on both sides
JUMP = 8.0  # a fault multiplies the error of the point before by more; a lower precision raises it gradually


@dataclass(frozen=True)
class FirstDifference:
    """The first difference between two models.

    Attributes:
        place: the first point that differs, or the part of the rule.
        after: the last point before it that agrees; None if it is the first point.
        error: largest difference at that point, relative to the reference's largest number.
    """

    place: str
    after: str | None
    error: float

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return asdict(self) | {"error": scientific(self.error)}

    def __str__(self) -> str:
        return self.place if self.after is None else f"{self.place} (after {self.after}, which agrees)"


def first_difference(reference: Points, bundle: Points, *, noise: float) -> FirstDifference | None:
    """Return the first point present in both that differs; None if all agree.

    Args:
        reference: values by point, in the order of the forward pass.
        bundle: values by the same names.
        noise: relative error expected from the bundle's precision.
    """
    before, after = noise, None
    for name, expected in reference.items():
        actual = bundle.get(name)
        if actual is None or actual.ndim != expected.ndim:
            continue
        error = relative_error(expected, actual)
        if not error <= max(TOLERANCE, JUMP * before):
            return FirstDifference(name, after, error)
        before, after = max(before, error), name
    return None


def relative_error(expected: NDArray[Any], actual: NDArray[Any]) -> float:
    """Return the largest difference divided by the largest expected number.

    Where the shapes differ, only the last positions that both have are compared; infinity if they cannot be.

    Examples:
        >>> relative_error(np.array([1.0, 2.0]), np.array([1.0, 2.5]))
        0.25
    """
    if expected.shape != actual.shape:
        n = min(expected.shape[-2], actual.shape[-2])
        expected, actual = expected[..., -n:, :], actual[..., -n:, :]
    if expected.shape != actual.shape or not np.isfinite(actual).all():
        return np.inf
    return float(np.abs(expected - actual).max(initial=0.0) / max(float(np.abs(expected).max(initial=0.0)), 1e-30))
