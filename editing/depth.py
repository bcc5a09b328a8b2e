"""Factors that are linear in the depth of a block (LiNeS, arXiv 2410.17146; torch-free)."""

import re
from collections.abc import Iterable, Sequence

BLOCK = re.compile(r"(?:^|\.)(\d+)\.")  # the first number in a name: model.layers.7.mlp..., transformer.h.7.attn...


def block_of(name: str) -> int | None:
    """Return the index of the transformer block that a tensor belongs to, from 0; None if it is outside the blocks.

    >>> block_of("model.layers.12.mlp.experts.3.up_proj.weight"), block_of("lm_head.weight")
    (12, None)
    """
    match = BLOCK.search(name)
    return int(match[1]) if match else None


def count_blocks(names: Iterable[str]) -> int:
    """Return the number of blocks up to the deepest one that has a tensor; 0 if no tensor is in a block."""
    return 1 + max((block for block in map(block_of, names) if block is not None), default=-1)


def depth_factors(names: Sequence[str], first: float, last: float) -> dict[str, float]:
    """Return the factor of each tensor, linear from `first` in the first block to `last` in the deepest one.

    Block l of L gets first + (last - first) * l / (L - 1); if there is only one block, it gets `first`. Tensors outside
    the blocks (embeddings, final norm and output head) get `first` as well.

    This follows the paper with first = alpha and last = alpha + beta. The authors' code gives alpha to all tensors
    outside the residual blocks, which in their vision transformers includes the norm and the projection after the last
    block (github.com/wang-kee/LiNeS, `LiNeS_scaling`). It does not cover the output head of a language model. We use
    alpha there too, because a tied head is the embedding: a tied and an untied head then get the same factor.

    Args:
        names: names of the tensors.
        first: factor of the first block and of tensors outside the blocks.
        last: factor of the deepest block.

    >>> depth_factors(["embed.weight", "layers.0.w", "layers.1.w", "layers.2.w", "lm_head.weight"], 0.25, 0.75)
    {'embed.weight': 0.25, 'layers.0.w': 0.25, 'layers.1.w': 0.5, 'layers.2.w': 0.75, 'lm_head.weight': 0.25}
    """
    deepest = max(1, count_blocks(names) - 1)
    depths = {name: (block_of(name) or 0) / deepest for name in names}
    return {name: first * (1 - depth) + last * depth for name, depth in depths.items()}
