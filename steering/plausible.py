"""The plausible set: the K tokens with the highest logits."""

import torch
from torch import Tensor


def plausible(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the K highest logits and their token ids, both [..., K], in descending order.

    Args:
        logits: [..., V], next-token logits.
        k: K >= 1; above V all V tokens are returned.

    Examples:
        >>> plausible(torch.tensor([0.0, 3.0, 1.0]), 2)
        (tensor([3., 1.]), tensor([1, 2]))
    """
    value, candidates = torch.topk(logits, min(k, logits.shape[-1]), dim=-1)
    return value, candidates
