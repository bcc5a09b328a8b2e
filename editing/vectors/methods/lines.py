"""Scale each block by its depth, shallow ones least (LiNeS, arXiv 2410.17146).

tau_l' = (alpha + beta * l / (L - 1)) * tau_l for block l of L; alpha * tau outside the blocks
"""

import re

import numpy as np

from ...errors import InputError
from .method import Array, Deltas, Prepared
from .numbers import at_least

BLOCK = re.compile(r"(?:^|\.)(\d+)\.")  # the first number in a name: model.layers.7.mlp..., transformer.h.7.attn...


def depth_factor(depth: int | None, n_blocks: int, alpha: float, beta: float) -> float:
    """Return the factor of a block, 0 the first; of what is outside the blocks for None.

    >>> [depth_factor(depth, 3, 0.1, 0.9) for depth in (None, 0, 1, 2)]
    [0.1, 0.1, 0.55, 1.0]
    """
    if depth is None:
        return alpha
    return alpha + beta * (depth / (n_blocks - 1) if n_blocks > 1 else 1.0)


def block_of(name: str) -> int | None:
    """Return the number of the block that a tensor belongs to.

    >>> block_of("model.layers.12.mlp.experts.3.up_proj.weight"), block_of("lm_head.weight")
    (12, None)
    """
    found = BLOCK.search(name)
    return int(found[1]) if found else None


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
    depths = [depth for depth in map(block_of, deltas.names) if depth is not None]
    if not depths:
        raise InputError("lines should be given tensors with block numbers in their names, found none; use another one")
    n_blocks = max(depths) + 1

    def transform(name: str, delta: Array) -> Array:
        factor = np.float32(depth_factor(block_of(name), n_blocks, alpha, beta))
        return np.multiply(delta, factor, out=np.empty_like(delta))

    return Prepared(transform, {"alpha": alpha, "beta": beta, "n_blocks": n_blocks})
