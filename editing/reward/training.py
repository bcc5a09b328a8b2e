"""Training a reward model on labelled pairs: a preference per pair, one loss per attribute, conflicts as a choice.

PARM draws one preference per batch; here every pair of a batch has its own, which covers the corners in each step.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..batches import EncodedReply, encode_reply, pad_replies, shuffled_batches
from ..chat import ChatTokenizer
from ..errors import InputError
from ..settings import Count, NonNegative, Positive, Settings
from .attributes import Attribute
from .conflict import conflict_step
from .loss import attribute_losses, preference_grid, reply_log_probability
from .model import RewardModel, uniform_preference
from .pairs import Pair


class RewardTraining(Settings):
    """How to train.

    Attributes:
        steps: number of optimiser steps.
        batch_size: pairs per step.
        learning_rate: peak of a cosine schedule with 5 % warm-up.
        concentration: Dirichlet parameter of the preferences, one per pair; below 1 favours the corners.
        conflict: none, pcgrad or mgda.
        anchor_weight: weight of the mean cross-entropy per token on both replies. On replies that the model itself
            drew this is KL(pi || pi_p) up to a constant: what the preference does not care about stays as it was.
    """

    steps: Count = 200
    batch_size: Count = 32
    learning_rate: Positive = 5e-3
    weight_decay: NonNegative = 0.0
    concentration: Positive = 0.5
    conflict: Literal["none", "pcgrad", "mgda"] = "none"
    anchor_weight: NonNegative = 0.5
    max_tokens: Count = 1024


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs as token ids (2n sequences: first replies, then second ones) with their labels' signs [n, k]."""

    sequences: list[EncodedReply]
    signs: Tensor

    @classmethod
    def from_pairs(
        cls,
        pairs: Sequence[Pair],
        *,
        tokenizer: ChatTokenizer,
        attributes: Sequence[str],
        max_tokens: int,
        require_labels: bool = True,
    ) -> "EncodedPairs":
        """Encode every pair.

        Raises:
            InputError: an attribute has no label in any pair, and labels are required.
        """
        replies = [(pair, pair.first) for pair in pairs] + [(pair, pair.second) for pair in pairs]
        sequences = [encode_reply(tokenizer, pair.messages, text, max_tokens=max_tokens) for pair, text in replies]
        signs = torch.tensor([pair.signs(attributes) for pair in pairs], dtype=torch.float32)
        unlabelled = [name for index, name in enumerate(attributes) if not signs[:, index].any()]
        if unlabelled and require_labels:
            raise InputError(f"every attribute should have labelled pairs: {', '.join(unlabelled)} has none")
        return cls(sequences, signs)

    def rewards(
        self, reward: RewardModel, rows: Sequence[int], preference: Tensor, pad_id: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the [B] log-probabilities of the rows' first and second replies under preferences [B, k].

        Third comes the mean log-probability per reply token, a scalar.
        """
        n = len(self.signs)
        batch = pad_replies(self.sequences, [*rows, *(row + n for row in rows)], pad_id=pad_id)
        logits = reward.logits(batch.input_ids, batch.attention_mask, preference.repeat(2, 1))
        totals = reply_log_probability(logits, batch.next_ids, batch.predicts_reply)  # [2B]
        first, second = totals.chunk(2)
        return first, second, totals.sum() / batch.predicts_reply.sum()


def train_reward(
    reward: RewardModel,
    pairs: EncodedPairs,
    *,
    attributes: Sequence[Attribute],
    training: RewardTraining,
    pad_id: int,
    seed: int,
    on_step: Callable[[], None] = lambda: None,
) -> list[float]:
    """Train the adapter in place and return the loss of every step."""
    generator = torch.Generator().manual_seed(seed)
    betas = torch.tensor([attribute.beta for attribute in attributes])
    parameters = reward.parameters
    optimizer = torch.optim.AdamW(parameters, lr=training.learning_rate, weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _cosine(training.steps))
    batches = shuffled_batches(len(pairs.signs), batch_size=training.batch_size, generator=generator)
    history = []
    for _ in range(training.steps):
        rows = next(batches)
        preference = preference_grid(
            len(rows), len(attributes), concentration=training.concentration, generator=generator
        )
        first, second, per_token = pairs.rewards(reward, rows, preference, pad_id)
        losses = attribute_losses(first, second, pairs.signs[rows], betas, weights=preference)
        optimizer.zero_grad()
        anchor = -training.anchor_weight * per_token
        conflict_step(losses, parameters, method=training.conflict, anchor=anchor)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        history.append(float(losses.detach().sum()))
        on_step()
    return history


@torch.no_grad()
def pair_accuracy(
    reward: RewardModel, pairs: EncodedPairs, *, attributes: Sequence[str], pad_id: int, batch_size: int = 64
) -> dict[str, dict[str, float]]:
    """Return, per attribute, the share of its labelled pairs ranked right, at its corner and at uniform."""
    uniform = uniform_preference(len(attributes))
    corners = torch.eye(len(attributes))
    at_uniform = _margins(reward, pairs, uniform, pad_id, batch_size)
    result: dict[str, dict[str, float]] = {}
    for index, name in enumerate(attributes):
        at_corner = _margins(reward, pairs, corners[index], pad_id, batch_size)
        signs = pairs.signs[:, index]
        labelled = signs != 0
        result[name] = {
            "corner": _share(at_corner * signs > 0, labelled),
            "uniform": _share(at_uniform * signs > 0, labelled),
            "n": int(labelled.sum()),
        }
    return result


def _share(right: Tensor, labelled: Tensor) -> float:
    """Share of the labelled pairs that are ranked right; 0 where none is labelled (n says so)."""
    return float(right[labelled].float().mean()) if labelled.any() else 0.0


def _margins(reward: RewardModel, pairs: EncodedPairs, preference: Tensor, pad_id: int, batch_size: int) -> Tensor:
    found: list[Tensor] = []
    for start in range(0, len(pairs.signs), batch_size):
        rows = range(start, min(start + batch_size, len(pairs.signs)))
        first, second, _ = pairs.rewards(reward, rows, preference.expand(len(rows), -1), pad_id)
        found.append(first - second)
    return torch.cat(found)


def _cosine(steps: int) -> Callable[[int], float]:
    warm_up = max(1, steps // 20)
    return lambda step: min(1.0, (step + 1) / warm_up) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))
