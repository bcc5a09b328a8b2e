"""Factors that are linear in the depth of a block (LiNeS, arXiv 2410.17146; torch-free)."""

import re
from collections.abc import Iterable, Sequence

BLOCK = re.compile(r"(?:^|\.)(\d+)\.")  # the first number in a name: model.layers.7.mlp..., transformer.h.7.attn...


def block_of(name: str) -> int | None:
    """Return the number of the block that a tensor belongs to, 0 the first; None outside the blocks.

    >>> block_of("model.layers.12.mlp.experts.3.up_proj.weight"), block_of("lm_head.weight")
    (12, None)
    """
    match = BLOCK.search(name)
    return int(match[1]) if match else None


def count_blocks(names: Iterable[str]) -> int:
    """Return one more than the number of the deepest block among the tensors; 0 if none is in a block."""
    return 1 + max((block for block in map(block_of, names) if block is not None), default=-1)


def depth_factors(names: Sequence[str], first: float, last: float) -> dict[str, float]:
    """Return the factor of every tensor: from `first` in the first block to `last` in the deepest one.

    Block l of L has first + (last - first) * l / (L - 1); a single block has `first`. Tensors outside the blocks have
    `first` too, the output side included: embeddings, the last norm and the head.

    This is the paper's reading. With first = alpha and last = alpha + beta, the authors' code gives alpha to all that
    is outside the residual blocks, in their vision transformers also to the norm and the projection after the last
    block (github.com/wang-kee/LiNeS, `LiNeS_scaling`). It says nothing of a language model's head. We treat it
    alike: a head that is tied is the embedding, and would otherwise have another factor than the same head untied.

    >>> depth_factors(["embed.weight", "layers.0.w", "layers.1.w", "layers.2.w", "lm_head.weight"], 0.25, 0.75)
    {'embed.weight': 0.25, 'layers.0.w': 0.25, 'layers.1.w': 0.5, 'layers.2.w': 0.75, 'lm_head.weight': 0.25}
    """
    deepest = max(1, count_blocks(names) - 1)
    depths = {name: (block_of(name) or 0) / deepest for name in names}
    return {name: first * (1 - depth) + last * depth for name, depth in depths.items()}
