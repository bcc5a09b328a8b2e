"""Drop the few largest and the many smallest elements of each tensor (Model Breadcrumbs, arXiv 2312.06795).

Of n elements, the round(gamma * n) largest are dropped as outliers, and the next round(density * n) are kept.
"""

from typing import Annotated

from prosocial.core.errors import InputError

from .magnitudes import keep_largest_of
from .method import Array, Deltas, Prepared, method
from .numbers import Number


def keep_middle(delta: Array, density: float, gamma: float) -> Array:
    """Return a delta (fp32) in which only the elements of medium magnitude are kept, at least one.

    Args:
        delta: the delta, fp32.
        density: share of the elements to keep.
        gamma: share of the largest elements to drop.
    """
    n = delta.size
    n_keep = max(1, round(density * n))
    n_outliers = min(round(gamma * n), n - n_keep)
    kept = keep_largest_of(delta, n_outliers + n_keep)
    kept[keep_largest_of(delta, n_outliers) != 0] = 0.0
    return kept


@method(elementwise=True)
def prepare(
    deltas: Deltas,
    *,
    density: Annotated[float, Number(0, 1, above=True, search=(0.3, 0.98))] = 0.9,
    gamma: Annotated[float, Number(0)] = 0.01,
) -> Prepared:
    """Prepare the method; the deltas are not read.

    Args:
        deltas: not read.
        density: share of the elements to keep.
        gamma: share of the largest elements to drop.

    Raises:
        InputError: the sum of both shares is above 1.
    """
    if density + gamma > 1:
        raise InputError(f"density + gamma should be at most 1, found {density} + {gamma}; use a smaller gamma")
    parameters = {"density": density, "gamma": gamma}
    return Prepared(lambda name, delta: keep_middle(delta, density, gamma), parameters)
