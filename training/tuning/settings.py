"""Settings of supervised fine-tuning and DPO (torch-free).

The defaults are CoSAlign's (RMSprop, a short warm-up, a constant learning rate), for models with billions of
parameters. A small model needs a much higher learning rate.
"""

import math
from typing import Literal

from pydantic import Field

from prosocial.core.errors import InputError
from prosocial.core.placement import Placement
from prosocial.core.settings import Count, Pattern, Positive, Settings

ON_CPU = Placement()  # in float32


def dtype_to_tune_in(dtype: str) -> str:
    """Return the dtype for tuning a model that runs in `dtype`: float16 has too small a range for gradients.

    Examples:
        >>> dtype_to_tune_in("float16"), dtype_to_tune_in("bfloat16")
        ('float32', 'bfloat16')
    """
    return "float32" if dtype == "float16" else dtype


class LoraShape(Settings):
    """A LoRA adapter to train instead of all weights; it is merged into the model after training.

    Attributes:
        rank: rank of the LoRA factors.
        alpha: LoRA scale; the weight delta is alpha / rank * B A.
        targets: names of the linear layers to adapt, or "all-linear".
    """

    rank: Count = 32
    alpha: Count = 16
    targets: Pattern | tuple[str, ...] = "all-linear"


class AdapterTraining(Settings):
    """Settings of the LoRA fine-tuning of a harmful copy.

    Attributes:
        rank: rank of the LoRA factors.
        alpha: LoRA scale; the weight delta is alpha / rank * B A.
        targets: names of the linear layers to adapt, or "all-linear".
        steps: number of optimiser steps.
        batch_size: sequences per step.
        learning_rate: peak of a cosine schedule with 10 % warm-up.
        max_tokens: maximum number of tokens of a prompt with its reply.
        by_length: whether the rows of a batch have nearly equal lengths, which saves padding.
    """

    rank: Count = 8
    alpha: Count = 16
    targets: Pattern | tuple[str, ...] = "all-linear"
    steps: Count = 60
    batch_size: Count = 32
    learning_rate: Positive = 2e-3
    max_tokens: Count = 1024
    by_length: bool = True

    def tuning(self) -> "Tuning":
        """Return these settings as those of supervised fine-tuning."""
        return Tuning(
            lora=LoraShape(rank=self.rank, alpha=self.alpha, targets=self.targets),
            epochs=self.steps,
            most_steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            warmup_steps=max(1, self.steps // 10),
            schedule="cosine",
            optimizer="adamw_torch",
            max_gradient_norm=1.0,
            max_tokens=self.max_tokens,
            checkpoint_every=max(1, self.steps // 10),
            by_length=self.by_length,
        )


class Tuning(Settings):
    """Settings of supervised fine-tuning.

    Attributes:
        lora: shape of a LoRA adapter; None to train all weights.
        epochs: number of passes over the data.
        most_steps: maximum number of updates; None for no limit.
        batch_size: rows per forward pass and process; halved where memory runs out, with the same update.
        accumulation: forward passes per update (gradient accumulation).
        learning_rate: peak learning rate.
        warmup_steps: updates until the peak.
        schedule: learning rate schedule after the warm-up.
        optimizer: optimiser.
        max_gradient_norm: norm to which gradients are clipped.
        max_tokens: maximum number of tokens of a prompt with its reply.
        checkpoint_every: updates between checkpoints; one is also written every five minutes.
        by_length: whether the rows of a batch have nearly equal lengths, which saves padding.
        bf16: old spelling of the dtype bfloat16.
    """

    lora: LoraShape | None = None
    epochs: Positive = 3.0
    most_steps: Count | None = None
    batch_size: Count = 32
    accumulation: Count = 1
    learning_rate: Positive = 5e-7
    warmup_steps: int = Field(default=150, ge=0)
    schedule: Literal["constant_with_warmup", "cosine"] = "constant_with_warmup"
    optimizer: Literal["rmsprop", "adamw_torch"] = "rmsprop"
    max_gradient_norm: Positive = 10.0
    max_tokens: Count = 640
    checkpoint_every: Count = 100
    by_length: bool = True
    bf16: bool = False

    def steps(self, n_rows: int) -> int:
        """Return the number of updates over `n_rows` rows on one process.

        Examples:
            >>> Tuning(epochs=2, batch_size=4, accumulation=2).steps(17)
            6
        """
        wanted = math.ceil(self.epochs * math.ceil(n_rows / (self.batch_size * self.accumulation)))
        return min(wanted, self.most_steps or wanted)

    def placed(self, placement: Placement) -> Placement:
        """Return where a model is tuned: the placement, in bfloat16 where the old setting says so.

        Raises:
            InputError: the dtype is float16, whose range is too small for gradients.

        Examples:
            >>> Tuning(bf16=True).placed(Placement("cpu", "float32"))
            Placement(device='cpu', dtype='bfloat16')
        """
        if self.bf16:
            return Placement.choose(placement.device, "bfloat16")
        if placement.dtype == "float16":
            raise InputError(
                "a model should be tuned in float32 or bfloat16, the value is float16: choose --dtype bfloat16"
            )
        return placement


class PreferenceTuning(Tuning):
    """Direct preference optimisation (DPO, arXiv 2305.18290) with summed log-probabilities.

    Attributes:
        beta: strength of the penalty for leaving the reference model; above 0.
    """

    beta: Positive = 0.1
