"""Formulas that combine the scores of a base model and its guides, as pure functions of tensors.

Scores are logits [..., V], up to a constant per row. Weights broadcast against the leading axes. A row with weight 0
keeps the base's scores bit for bit.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from prosocial.core.errors import InputError


def weighted_product(base: Tensor, guides: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Return `log pi + sum_i w_i log pi_i`: GenARM (arXiv 2410.08193), and PARM (arXiv 2505.06274) with one guide.

    Args:
        base: [..., V] logits.
        guides: n tensors [..., V] of logits.
        weights: [..., n] weight 1 / beta_i of each guide.
    """
    guided = base.log_softmax(-1)
    for index, logits in enumerate(guides):
        guided = guided + weights[..., index, None] * logits.log_softmax(-1)
    return torch.where((weights == 0).all(-1, keepdim=True), base, guided)


def contrast(base: Tensor, expert: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    """Return `z + w (z_expert - z_other)` (DExperts, arXiv 2105.03023).

    With the reward model under preference p as expert and its unadapted model as `other`, this is the teacher of the
    head. With the base under a safety prompt as expert and the base as `other`, it is contrastive decoding.

    Args:
        base: [..., V] logits.
        expert: [..., V] logits.
        other: [..., V] logits.
        weight: [...] weight w.
    """
    guided = base + weight[..., None] * (expert - other)
    return torch.where(weight[..., None] == 0, base, guided)


def union_penalty(base: Tensor, unsafe: Tensor, strength: Tensor) -> Tensor:
    """Return `log p - s / (1 - s) max(0, log p_unsafe - log p)` (SafeInfer, arXiv 2406.12274, the union form).

    Tokens that the unsafe model does not prefer keep their relative odds; those it prefers are strongly penalised.

    Args:
        base: [..., V] logits.
        unsafe: [..., V] logits of the unsafe model.
        strength: [...] in [0, 1), the paper's lambda (0.99 there).

    Raises:
        InputError: a strength is out of range.
    """
    if not bool(((strength >= 0) & (strength < 1)).all()):
        raise InputError(
            f"the strength of the union penalty should be at least 0 and below 1, found {strength.tolist()}"
        )
    own = base.log_softmax(-1)
    excess = (unsafe.log_softmax(-1) - own).clamp(min=0.0)
    excess = torch.where(torch.isfinite(own), excess, 0.0)  # tokens already excluded stay excluded
    penalised = own - (strength / (1 - strength))[..., None] * excess
    return torch.where(strength[..., None] == 0, base, penalised)
