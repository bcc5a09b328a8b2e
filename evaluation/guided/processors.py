"""Guided decoding for `generate` of transformers: logits processors for the teacher of the head and for baselines.

    model.generate(**batch, logits_processor=[parm(reward, preference, attention_mask=batch["attention_mask"])])

Every guide keeps its own cache, rows may be left-padded, and each row may have its own weight and preference. A
processor serves a single call of `generate`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from prosocial.core.errors import InputError
from prosocial.training.reward import RewardModel

from .formulas import contrast, union_penalty, weighted_product
from .guide import Guide
from .vocabulary import require_same_size

Combine = Callable[[Tensor, list[Tensor]], Tensor]
Weight = float | Tensor  # one for all rows, or [B]


class GuidedProcessor(LogitsProcessor):
    """Combines the base model's scores with the logits of its guides.

    Args:
        guides: the guiding models.
        combine: computes guided scores [B, V] from the base's scores [B, V] and the guides' logits.
    """

    def __init__(self, guides: Sequence[Guide], combine: Combine) -> None:
        self._guides, self._combine = tuple(guides), combine

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return guided scores [B, V] for rows [B, S].

        Raises:
            InputError: the vocabularies differ, or the rows are from another call of `generate`.
        """
        for guide in self._guides:
            require_same_size(scores.shape[-1], guide.vocabulary_size)
        return self._combine(scores.float(), [guide.follow(input_ids) for guide in self._guides])


def parm(
    reward: RewardModel,
    preference: Tensor,
    *,
    weight: Weight = 1.0,
    log_ratio: bool = False,
    attention_mask: Tensor | None = None,
) -> GuidedProcessor:
    """Return a processor that guides by one reward model under a preference per row (PARM, arXiv 2505.06274).

    Args:
        reward: reward model trained from the same base.
        preference: [B or 1, k] preference of each row.
        weight: 1 / beta, for all rows or [B].
        log_ratio: add `log pi_p - log pi`, which the head is distilled from, instead of `log pi_p`.
        attention_mask: [B, S] mask of the prompts; None without padding.
    """
    guides = [Guide(reward, preference=preference, attention_mask=attention_mask)]
    if not log_ratio:
        weights = _weights(weight)[:, None]
        return GuidedProcessor(guides, lambda base, logits: weighted_product(base, logits, weights.to(base.device)))
    guides.append(Guide(reward, attention_mask=attention_mask))
    return _contrast(guides, weight)


def genarm(
    models: Sequence[Any], weights: Sequence[float] | Tensor, *, attention_mask: Tensor | None = None
) -> GuidedProcessor:
    """Return a processor that guides by n reward models, one per attribute (GenARM, arXiv 2410.08193).

    Args:
        models: n causal language models.
        weights: [n] or [B, n], 1 / beta_i times the preference for attribute i.
        attention_mask: [B, S] mask of the prompts; None without padding.

        Raises:
            InputError: the number of weights differs from the number of models.
    """
    table = torch.as_tensor(weights, dtype=torch.float32)
    table = table[None] if table.dim() == 1 else table
    if table.dim() != 2 or table.shape[1] != len(models):
        raise InputError(f"there should be one weight per model ({len(models)}), found shape {tuple(table.shape)}")
    guides = [Guide(model, attention_mask=attention_mask) for model in models]
    return GuidedProcessor(guides, lambda base, logits: weighted_product(base, logits, table.to(base.device)))


def dexperts(
    expert: Any, anti_expert: Any, *, weight: Weight = 2.0, attention_mask: Tensor | None = None
) -> GuidedProcessor:
    """Return a processor that contrasts an expert with an anti-expert (DExperts, arXiv 2105.03023; weight 2 there)."""
    return _contrast([Guide(model, attention_mask=attention_mask) for model in (expert, anti_expert)], weight)


def safety_prompt(
    model: Any,
    prompt: tuple[Tensor, Tensor],
    *,
    weight: Weight = 1.0,
    attention_mask: Tensor | None = None,
) -> GuidedProcessor:
    """Return a processor that contrasts the base under a safety prompt with the base without it.

    Args:
        model: the base model.
        prompt: ids and mask [B, S'] of the same conversations with the safety prompt, left-padded.
        weight: contrast weight, for all rows or [B].
        attention_mask: [B, S] mask of the prompts; None without padding.
    """
    guides = [Guide(model, prompt=prompt), Guide(model, attention_mask=attention_mask)]
    return _contrast(guides, weight)


def safe_infer(unsafe: Any, *, strength: Weight = 0.99, attention_mask: Tensor | None = None) -> GuidedProcessor:
    """Return a processor that penalises tokens an unsafe model prefers (SafeInfer, arXiv 2406.12274, union form)."""
    strengths = _weights(strength)
    guides = [Guide(unsafe, attention_mask=attention_mask)]
    return GuidedProcessor(guides, lambda base, logits: union_penalty(base, logits[0], strengths.to(base.device)))


def _contrast(guides: Sequence[Guide], weight: Weight) -> GuidedProcessor:
    weights = _weights(weight)
    return GuidedProcessor(guides, lambda base, logits: contrast(base, logits[0], logits[1], weights.to(base.device)))


def _weights(weight: Weight) -> Tensor:
    """Return weights as a tensor [1] or [B].

    Raises:
        InputError: a weight is negative or not finite.
    """
    weights = torch.as_tensor(weight, dtype=torch.float32).reshape(-1)
    if not bool((torch.isfinite(weights) & (weights >= 0)).all()):
        raise InputError(f"a weight should be finite and at least 0, found {weights.tolist()}")
    return weights
