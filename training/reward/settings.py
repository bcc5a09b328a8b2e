"""How a reward model is trained, as a recipe names it."""

from typing import Literal

from prosocial.core.settings import Count, NonNegative, Positive, Settings


class RewardTraining(Settings):
    """How to train.

    Attributes:
        steps: number of optimiser steps.
        batch_size: pairs per step.
        micro_batch_size: pairs per pass through the model; None: all of a batch. It changes memory, not the result.
        gradient_checkpointing: compute activations again for a backward pass instead of keeping them: less memory.
        learning_rate: peak of a cosine schedule with 5 % warm-up.
        concentration: Dirichlet parameter of the preferences; below 1 favours the corners.
        preferences: whether each pair of a batch has its own preference, or the batch has one (as in PARM).
        conflict: how the attributes' gradients become one step (`conflict.py`).
        anchor_weight: weight of the mean cross-entropy per token on both replies. On replies that the model itself
            drew this is KL(pi || pi_p) up to a constant: what the preference does not care about stays as it was.
        log_every: steps between two measurements of conflicting gradients, where a method does not need them anyway.
        checkpoint_every: steps between two checkpoints.
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
