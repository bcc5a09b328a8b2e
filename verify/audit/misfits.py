"""Elements that contradict a claim, counted; the first of them are kept."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosocial.editing.checkpoints.header import TensorInfo

from .audit_document import Element

SHOWN = 5


class Misfits:
    """Counts over one tensor, piece by piece.

    Attributes:
        n: how many elements contradict.
    """

    def __init__(self) -> None:
        self.n = 0
        self._shown: list[tuple[int, float, float, float]] = []

    def add(self, at: int, places: NDArray[np.intp], *values: NDArray[Any]) -> None:
        """Count the elements of a piece that contradict.

        Args:
            at: place of the piece in its tensor.
            places: of those elements in the piece.
            values: [n] fp32 of the piece: the base's, the model's, and what was expected.
        """
        self.n += len(places)
        for place in places[: SHOWN - len(self._shown)]:
            base, found, expected = (float(each[place]) for each in values)
            self._shown.append((at + int(place), base, found, expected))

    def elements(self, shape: tuple[int, ...]) -> tuple[Element, ...]:
        """Return the first ones, with their places in the tensor."""
        return tuple(
            Element(
                index=tuple(int(each) for each in np.unravel_index(at, shape)) if shape else (),
                base=_number(base),
                found=_number(found),
                expected=_number(expected),
            )
            for at, base, found, expected in self._shown
        )


def tell_first(elements: Sequence[Element], n_misfits: int, tensor: TensorInfo) -> str:
    """Say which element refutes."""
    first = elements[0]
    return (
        f"element {list(first.index)} is {first.found}, expected {first.expected} (base {first.base}); "
        f"{n_misfits:,} of {tensor.n_elements:,} elements differ"
    )


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
