"""Keep the largest elements of each tensor (harm direction removal, arXiv 2406.11801, equation 2, per tensor).

A global threshold (`top_k`) keeps mostly elements of the few tensors with the largest changes; this method keeps the
same share of each tensor.
"""

from .magnitudes import keep_largest_of
from .method import Array, Deltas, Prepared, method
from .numbers import Density


def trim(delta: Array, density: float) -> Array:
    """Return a delta (fp32) with its largest elements kept: a share `density`, at least one; the first of ties."""
    return keep_largest_of(delta, max(1, round(density * delta.size)))


@method(elementwise=True)
def prepare(deltas: Deltas, *, density: Density) -> Prepared:
    """Prepare the method; the deltas are not read.

    Args:
        deltas: not read.
        density: share of the elements of each tensor to keep.
    """
    return Prepared(lambda name, delta: trim(delta, density), {"density": density})
