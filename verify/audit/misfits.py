"""A count of the elements that contradict a claim, with the first few of them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosocial.editing.checkpoints.header import TensorInfo

from .audit_document import Element

SHOWN = 5


class Misfits:
    """Counts the contradicting elements of one tensor, piece by piece.

    Attributes:
        n: number of contradicting elements.
    """

    def __init__(self) -> None:
        self.n = 0
        self._shown: list[tuple[int, float, float, float]] = []

    def add(self, at: int, places: NDArray[np.intp], *values: NDArray[Any]) -> None:
        """Add the contradicting elements of a piece.

        Args:
            at: index of the piece's first element in the flattened tensor.
            places: indices of the contradicting elements in the piece.
            values: [n] fp32 elements of the piece in the base, in the model, and as expected.
        """
        self.n += len(places)
        for place in places[: SHOWN - len(self._shown)]:
            base, found, expected = (float(each[place]) for each in values)
            self._shown.append((at + int(place), base, found, expected))

    def elements(self, shape: tuple[int, ...]) -> tuple[Element, ...]:
        """Return the first contradicting elements, with their indices in the tensor."""
        return tuple(
            Element(
                index=tuple(int(each) for each in np.unravel_index(at, shape)) if shape else (),
                base=_number(base),
                found=_number(found),
                expected=_number(expected),
            )
            for at, base, found, expected in self._shown
        )


def describe_first(elements: Sequence[Element], n_misfits: int, tensor: TensorInfo) -> str:
    """Describe the first contradicting element and their number."""
    first = elements[0]
    return (
        f"element {list(first.index)} is {first.found}, expected {first.expected} (base {first.base}); "
        f"{n_misfits:,} of {tensor.n_elements:,} elements differ"
    )


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
