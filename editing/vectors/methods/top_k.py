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
    """Return the number of elements to keep for a share of the whole vector, at least one."""
    return max(1, round(density * sum(sizes.values())))


@method(elementwise=True)
def prepare(deltas: Deltas, *, density: Density) -> Prepared:
    """Find the magnitude threshold that keeps the share `density` of all elements of the vector.

    Of elements at the threshold the first are kept, in the order of names and then of positions.

    Args:
        deltas: read once or twice.
        density: share of the elements to keep.
    """

    def read(name: str) -> Iterator[list[Array]]:
        return ([piece] for piece in deltas.pieces(name))

    sizes = sizes_of(deltas)
    (threshold,) = find_thresholds(sizes, read, count_kept(sizes, density))
    return Prepared(threshold.keep, {"density": density}, by_piece=threshold.keeper)
