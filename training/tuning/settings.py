"""How a whole model is tuned on replies or on pairs of replies (torch-free).

The defaults are those of CoSAlign's own training (RMSprop, a short warm-up, no decay), for a model of billions of
parameters; a small model wants a far higher learning rate.
"""

import math
from typing import Literal

from pydantic import Field

from prosocial.core.settings import Count, Positive, Settings


class LoraShape(Settings):
    """An adapter to train instead of every weight; it is merged into the model in the end.

    Attributes:
        rank: of the two factors; alpha: delta = alpha / rank * B A.
        targets: names of the linear layers to adapt, or "all-linear".
    """

    rank: Count = 32
    alpha: Count = 16
    targets: str | tuple[str, ...] = "all-linear"


class Tuning(Settings):
    """Supervised tuning.

    Attributes:
        lora: an adapter's shape; None: every weight is trained.
        epochs: passes over the rows. most_steps: an end before that; None: none.
        batch_size: rows a process reads at once; accumulation: of these make one update.
        max_tokens: of a prompt and a reply together.
        checkpoint_every: updates from one state to go on from to the next.
        bf16: mixed precision, for accelerators that have it.
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
    bf16: bool = False

    def steps(self, n_rows: int) -> int:
        """Return the number of updates over `n_rows` rows on one process.

        Example:
            >>> Tuning(epochs=2, batch_size=4, accumulation=2).steps(17)
            6
        """
        wanted = math.ceil(self.epochs * math.ceil(n_rows / (self.batch_size * self.accumulation)))
        return min(wanted, self.most_steps or wanted)


class PreferenceTuning(Tuning):
    """Direct preference optimisation (DPO, arXiv 2305.18290) with summed log-probabilities.

    Attributes:
        beta: how strongly the tuned model is held to the one it starts from.
    """

    beta: Positive = 0.1
