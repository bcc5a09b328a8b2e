"""Fitting the compact head to a reward model's log-ratios.

Student: `z0 + (1 / beta) * w_v . delta(h, p)`, compared with the teacher on the plausible set, the K tokens with the
highest z0.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from prosocial.core.batches import EncodedReply
from prosocial.core.errors import InputError
from prosocial.core.settings import Count, Positive, Settings
from prosocial.steering.head import CompactHead

from ..reward.loss import preference_grid
from ..reward.model import RewardModel
from .states import TeacherStates, collect_states


class HeadTraining(Settings):
    """How to distil, apart from what the decoding sets.

    Attributes:
        rank: r of the head.
        sequences: how many replies of the data the reward model reads.
        passes: how often it reads each of them, every time under new preferences.
        on_policy: how many replies of a first draft of the head it reads too; 0: none, and no draft is fitted.
        mixture_gain: learn the factor by which a mixture of attributes shifts more than the mean of its parts; false:
            the factor stays at 1.
        loss: "forward_kl" is KL(teacher || student); "reverse_kl" is KL(student || teacher), which concentrates on
            the teacher's most likely tokens.
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


def collect_passes(
    reward: RewardModel,
    sequences: Sequence[EncodedReply],
    *,
    training: DistilTraining,
    pad_id: int,
    seed: int,
    on_batch: Callable[[int], None] = lambda n: None,
) -> TeacherStates:
    """Let the reward model read the sequences `training.passes` times, each time under new preferences."""
    n = len(reward.config.attributes)
    drawn = training_preferences(len(sequences) * training.passes, n, training, seed)
    return collect_states(
        reward,
        sequences,
        drawn.reshape(training.passes, len(sequences), n),
        plausible_k=training.plausible_k,
        pad_id=pad_id,
        on_batch=on_batch,
    )


def distil_head(
    states: TeacherStates,
    output_weight: Tensor,
    *,
    attributes: Sequence[str],
    training: DistilTraining,
    seed: int,
) -> CompactHead:
    """Fit a head to the teacher's states on the plausible set.

    Args:
        states: from `collect_states`.
        output_weight: [V, H] the model's output embedding.
        attributes: names in the order of the preference vector.
        training: how to fit.
        seed: seeds the initial values and the batches.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = CompactHead(attributes, hidden_size=states.hidden.shape[1], rank=training.rank)
    head.mixture_gain.requires_grad_(training.mixture_gain)
    fit(head, states, output_weight, training=training, seed=seed)
    return head.eval()


def fit(
    student: nn.Module,
    states: TeacherStates,
    output_weight: Tensor,
    *,
    training: DistilTraining,
    seed: int,
) -> None:
    """Fit a module that maps hidden states and preferences to shifts, such as the head, in place.

    Raises:
        InputError: the loss is not finite (names the step).
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(student.parameters(), lr=training.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.learning_rate, total_steps=training.steps + 1, pct_start=0.1
    )
    weight = output_weight.detach().float()
    for step in range(training.steps):
        chosen = torch.randint(len(states), (training.batch_size,), generator=generator)
        batch = states.rows(chosen)
        ours = student_log_probabilities(student, batch, weight, inverse_beta=training.inverse_beta)
        teacher = batch.teacher(training.inverse_beta)
        pair = (teacher, ours) if training.loss == "forward_kl" else (ours, teacher)
        loss = divergence(*pair).mean()
        if not torch.isfinite(loss):
            raise InputError(
                f"the head's loss should stay finite, found {float(loss.detach())} at step {step} of {training.steps}: "
                f"check the reward model, or lower head.learning_rate (it is {training.learning_rate:g})"
            )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def student_log_probabilities(
    student: nn.Module, states: TeacherStates, output_weight: Tensor, *, inverse_beta: float
) -> Tensor:
    """Return [M, K] log-probabilities of the student on the plausible set."""
    at = states.position
    delta = student(states.hidden[at], states.preference)  # [M, H]
    rows = nn.functional.embedding(states.candidates[at], output_weight)  # [M, K, H]
    shift: Tensor = (rows @ delta.unsqueeze(-1)).squeeze(-1)  # [M, K]
    return (states.z0[at] + inverse_beta * shift).log_softmax(-1)


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """Return [M] KL(first || second) in nats, of log-probabilities [M, K]."""
    kl: Tensor = (first.exp() * (first - second)).sum(-1)
    return kl


def training_preferences(n_rows: int, n_attributes: int, training: DistilTraining, seed: int) -> Tensor:
    """Return [n_rows, n_attributes] preferences: corners, the uniform one, and draws."""
    generator = torch.Generator().manual_seed(seed)
    return preference_grid(n_rows, n_attributes, concentration=training.concentration, generator=generator)
