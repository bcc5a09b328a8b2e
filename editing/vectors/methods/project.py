"""Remove the component along a utility vector from each tensor: tau - (<tau, u> / <u, u>) u.

Directions that carry harm and utility are entangled (arXiv 2505.14185): measure utility after every edit.
"""

from __future__ import annotations

from .companion import Companion, Given
from .in_torch import in_torch, torch
from .method import Deltas, Prepared, method


def remove_component(delta: torch.Tensor, utility: torch.Tensor) -> torch.Tensor:
    """Return the delta without its component along `utility`.

    If the two are parallel, only rounding noise would be left; then the result is zero.

    Args:
        delta: harmful delta, fp32.
        utility: utility delta, fp32, of the same shape.
    """
    from ..statistics import inner_product

    square = inner_product(utility, utility)
    if square == 0:
        return delta
    left = (delta.double() - (inner_product(delta, utility) / square) * utility.double()).float()
    noise = 2.0**-22 * inner_product(delta, delta) ** 0.5
    return left if inner_product(left, left) ** 0.5 > noise else torch.zeros_like(delta)


@method()
def prepare(deltas: Deltas, *, utility: Given) -> Prepared:
    """Open the utility vector; tensors that it does not hold stay as they are.

    Args:
        deltas: only their names are read.
        utility: path of a vector folder (benign model minus base), or tensors by name.

    Raises:
        ArtefactError: the folder is not a valid vector.
        InputError: the vectors have no tensor in common, or a shape differs.
    """
    companion = Companion(utility, deltas.names, "utility")

    def transform(name: str, delta: torch.Tensor) -> torch.Tensor:
        direction = companion.delta(name, tuple(delta.shape))
        return delta if direction is None else remove_component(delta, direction)

    return Prepared(in_torch(transform), {"utility_blake3": companion.blake3})
