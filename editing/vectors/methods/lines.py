"""Scale each block by a factor that is linear in its depth (LiNeS, arXiv 2410.17146).

tau_l' = (alpha + beta * l / (L - 1)) * tau_l for block l of L; alpha * tau outside the blocks (see `depth_factors`)
"""

from typing import Annotated

import numpy as np

from prosocial.core.errors import InputError

from ...depth import count_blocks, depth_factors
from .method import Array, Deltas, Prepared, method
from .numbers import Number


@method(elementwise=True)
def prepare(
    deltas: Deltas, *, alpha: Annotated[float, Number(0, search=(0.0, 1.0))] = 0.1, beta: float | None = None
) -> Prepared:
    """Count the blocks, up to the deepest one that the vector changes, and compute the factor of each tensor.

    Args:
        deltas: only their names are read.
        alpha: factor of the first block and of tensors outside the blocks.
        beta: factor of the last block minus alpha; None for 1 - alpha.

    Raises:
        InputError: the last block's factor is below 0, or no tensor name contains a block number.
    """
    beta = Number(-alpha).check("beta", 1 - alpha if beta is None else beta)
    n_blocks = count_blocks(deltas.names)
    if not n_blocks:
        raise InputError(
            "method lines should be given tensors with block numbers in their names, found none; use another method"
        )
    factors = depth_factors(deltas.names, alpha, alpha + beta)

    def transform(name: str, delta: Array) -> Array:
        return np.multiply(delta, np.float32(factors[name]), out=np.empty_like(delta))

    return Prepared(transform, {"alpha": alpha, "beta": beta, "n_blocks": n_blocks})
