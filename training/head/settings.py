"""Settings of the distillation (torch-free)."""

from typing import Literal

from pydantic import Field

from prosocial.core.settings import Count, Positive, Settings


class HeadTraining(Settings):
    """How to distil, apart from what the decoding sets.

    Attributes:
        rank: r of the head.
        sequences: how many replies of the data the reward model reads.
        passes: how often it reads each of them, every time under new preferences.
        on_policy: how many replies of a first draft of the head it reads too; 0: none, and no draft is fitted.
        mixture_gain: learn the factor by which a mixture of attributes shifts more than the mean of its parts; false:
            the factor stays at 1.
        loss: "forward_kl" is KL(teacher || student); "reverse_kl" is KL(student || teacher), which concentrates on the
            teacher's most likely tokens.
        max_tokens: most tokens of a prompt and its reply.
        steps: optimiser steps.
        batch_size: states per step.
        learning_rate: the highest of the one-cycle schedule.
        concentration: of the Dirichlet distribution that preferences are drawn from.
    """

    rank: Count = 32
    sequences: Count = 2000
    passes: Count = 2
    on_policy: int = Field(default=500, ge=0)
    mixture_gain: bool = False
    loss: Literal["forward_kl", "reverse_kl"] = "forward_kl"
    max_tokens: Count = 1024
    steps: Count = 1500
    batch_size: Count = 512
    learning_rate: Positive = 5e-3
    concentration: Positive = 0.4


class DistilTraining(HeadTraining):
    """How to distil, and the numbers that the decoding sets.

    Attributes:
        plausible_k: K, the size of the plausible set.
        inverse_beta: 1 / beta, the strength at which teacher and student are compared.
    """

    plausible_k: Count = 128
    inverse_beta: Positive = 1.0
