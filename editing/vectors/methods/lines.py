"""Scale each block by its depth, shallow ones least (LiNeS, arXiv 2410.17146).

tau_l' = (alpha + beta * l / (L - 1)) * tau_l for block l of L; alpha * tau outside the blocks (see `depth_factors`)
"""

import numpy as np

from ...depth import count_blocks, depth_factors
from ...errors import InputError
from .method import Array, Deltas, Prepared
from .numbers import at_least


def prepare(deltas: Deltas, *, alpha: float = 0.1, beta: float | None = None) -> Prepared:
    """Count the blocks: up to the deepest one that the vector changes.

    Args:
        deltas: only their names are read.
        alpha: factor of the first block and of what is outside the blocks.
        beta: what the last block has on top; 1 - alpha if None.

    Raises:
        InputError: alpha is below 0, or the last block's factor would be; no name holds the number of a block.
    """
    alpha = at_least("alpha", alpha, 0)
    beta = at_least("beta", 1 - alpha if beta is None else beta, -alpha)
    n_blocks = count_blocks(deltas.names)
    if not n_blocks:
        raise InputError("lines should be given tensors with block numbers in their names, found none; use another one")
    factors = depth_factors(deltas.names, alpha, alpha + beta)

    def transform(name: str, delta: Array) -> Array:
        return np.multiply(delta, np.float32(factors[name]), out=np.empty_like(delta))

    return Prepared(transform, {"alpha": alpha, "beta": beta, "n_blocks": n_blocks})
