"""The settings of reward model training, as in a recipe."""

from typing import Literal

from prosocial.core.settings import Count, NonNegative, Positive, Settings


class RewardTraining(Settings):
    """Settings of reward model training.

    Attributes:
        steps: number of optimiser steps.
        batch_size: pairs per step.
        micro_batch_size: pairs per forward pass; None for as many as the free memory allows, of nearly equal length. It
            affects memory, not the result; where memory runs out it is halved.
        gradient_checkpointing: recompute activations in the backward pass to save memory.
        learning_rate: peak of a cosine schedule with 5 % warm-up.
        weight_decay: weight decay of AdamW.
        concentration: concentration of the Dirichlet distribution of preferences; below 1 favours single attributes.
        preferences: "pair" to draw one preference per pair, "batch" to draw one per batch (as PARM does).
        conflict: how the gradients of the attributes' losses are combined, see `conflict.py`.
        anchor_weight: weight of the mean cross-entropy per token of both replies. On replies sampled from the base
            model this is KL(pi || pi_p) up to a constant, and keeps the adapted model close to the base.
        max_tokens: maximum number of tokens of a prompt with its reply.
        log_every: steps between measurements of conflicting gradients, for methods that do not compute them anyway.
        checkpoint_every: steps between checkpoints; one is also written after a minute without one.
    """

    steps: Count = 200
    batch_size: Count = 32
    micro_batch_size: Count | None = None
    gradient_checkpointing: bool = False
    learning_rate: Positive = 5e-3
    weight_decay: NonNegative = 0.0
    concentration: Positive = 0.5
    preferences: Literal["pair", "batch"] = "pair"
    conflict: Literal["none", "pcgrad", "cagrad", "mgda", "nash_mtl", "upgrad", "famo"] = "none"
    anchor_weight: NonNegative = 0.5
    max_tokens: Count = 1024
    log_every: Count = 50
    checkpoint_every: Count = 50
