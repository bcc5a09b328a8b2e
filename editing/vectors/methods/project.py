"""Remove what the harm vector shares with a utility vector, tensor by tensor: tau - (<tau, u> / <u, u>) u.

Directions that carry harm and utility are entangled (arXiv 2505.14185): measure utility after every edit.
"""

from __future__ import annotations

from .companion import Companion, Given
from .in_torch import in_torch, torch
from .method import Deltas, Prepared, method


def remove_component(delta: torch.Tensor, utility: torch.Tensor) -> torch.Tensor:
    """Return the delta without its component along `utility`; both fp32 of one shape.

    Where the two are parallel only rounding noise is left, whose direction means nothing: zeros are returned.
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
    """Open the utility vector: a vector folder (benign minus base), or tensors by name.

    Tensors that the utility vector does not hold stay as they are.

    Raises:
        InputError: no tensor is in both vectors, or a shape differs.
    """
    companion = Companion(utility, deltas.names, "utility")

    def transform(name: str, delta: torch.Tensor) -> torch.Tensor:
        direction = companion.delta(name, tuple(delta.shape))
        return delta if direction is None else remove_component(delta, direction)

    return Prepared(in_torch(transform), {"utility_blake3": companion.blake3})
