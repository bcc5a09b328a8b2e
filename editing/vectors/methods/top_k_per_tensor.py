"""Keep the largest elements of each tensor (harm direction removal, arXiv 2406.11801, equation 2, per tensor).

A global threshold spends the whole budget on the few tensors that moved most; this one keeps the same share of each.
"""

from .magnitudes import keep_largest_of
from .method import Array, Deltas, Prepared, method
from .numbers import Density


def trim(delta: Array, density: float) -> Array:
    """Keep the share `density` of largest elements of a delta (fp32), one at least; ties in flattened order."""
    return keep_largest_of(delta, max(1, round(density * delta.size)))


@method(elementwise=True)
def prepare(deltas: Deltas, *, density: Density) -> Prepared:
    """Nothing needs to be known of the other deltas."""
    return Prepared(lambda name, delta: trim(delta, density), {"density": density})
