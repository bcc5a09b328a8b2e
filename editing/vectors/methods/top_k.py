"""Keep the largest elements of the whole vector (harm direction removal, arXiv 2406.11801, equations 2 and 3)."""

import math
from collections.abc import Iterator, Mapping

from .magnitudes import find_thresholds
from .method import Array, Deltas, Prepared, method
from .numbers import Density


def sizes_of(deltas: Deltas) -> dict[str, int]:
    """Return the number of elements of each tensor."""
    return {name: math.prod(deltas.shape(name)) for name in deltas.names}


def count_kept(sizes: Mapping[str, int], density: float) -> int:
    """Return how many elements of the whole vector a share of it is, one at least."""
    return max(1, round(density * sum(sizes.values())))


@method(elementwise=True)
def prepare(deltas: Deltas, *, density: Density) -> Prepared:
    """Find the global threshold for a share `density` of all elements.

    Ties at the threshold stay in the order of names, then of elements, until the count is reached.
    """

    def read(name: str) -> Iterator[list[Array]]:
        return ([piece] for piece in deltas.pieces(name))

    sizes = sizes_of(deltas)
    (threshold,) = find_thresholds(sizes, read, count_kept(sizes, density))
    return Prepared(threshold.keep, {"density": density}, by_piece=threshold.keeper)
