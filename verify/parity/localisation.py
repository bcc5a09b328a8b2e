"""Where a bundle and its reference part: the first point on the way through the model at which they differ."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosocial.evaluation.statistics.interval import scientific

Points = Mapping[str, NDArray[np.float32]]
TOLERANCE = 1e-4  # relative to the largest number at the point, float32 on both sides
JUMP = 8.0  # times the error before: a lower precision is off everywhere, a fault shows as a jump


@dataclass(frozen=True)
class FirstDifference:
    """Where the two part.

    Attributes:
        place: the first point that differs, or the part of the rule.
        after: the last point before it that agrees; None where nothing comes before it.
        error: largest difference there, relative to the largest number of the reference.
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
    """Return the first point of the reference that the bundle has too and that differs; None if all agree.

    Args:
        reference: in the order in which they pass by. bundle: by the same names.
        noise: relative error that the bundle's precision brings by itself.
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
    """Return the largest difference over the largest number; of keys and values, on the last positions of both."""
    if expected.shape != actual.shape:
        n = min(expected.shape[-2], actual.shape[-2])
        expected, actual = expected[..., -n:, :], actual[..., -n:, :]
    if expected.shape != actual.shape or not np.isfinite(actual).all():
        return np.inf
    return float(np.abs(expected - actual).max(initial=0.0) / max(float(np.abs(expected).max(initial=0.0)), 1e-30))
