"""Fitting the compact head to a reward model's log-ratios.

Student: `z0 + (1 / beta) * w_v . delta(h, p)`, compared with the teacher on the plausible set, the K tokens with the
highest z0.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from prosocial.core.batches import EncodedReply
from prosocial.core.errors import InputError
from prosocial.steering.head import CompactHead

from ..reward.loss import preference_grid
from ..reward.model import RewardModel
from ..state_files import StateFiles, draw, windows
from .settings import DistilTraining
from .states import TeacherStates, collect_states

MOST_NUMBERS = 1 << 25  # of the output embedding's rows at once


def collect_passes(
    reward: RewardModel,
    sequences: Sequence[EncodedReply],
    *,
    training: DistilTraining,
    pad_id: int,
    seed: int,
    files: StateFiles | None = None,
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
        files=files,
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
    fit(head.to(output_weight.device), states, output_weight, training=training, seed=seed)
    return head.eval().cpu()


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
    weight = output_weight.detach()
    drawn_from = windows(len(states), row_bytes=states.row_bytes, draws=training.batch_size, generator=generator)
    for step, window in zip(range(training.steps), drawn_from, strict=False):
        chosen = draw(len(states), window, training.batch_size, generator)
        optimizer.zero_grad()
        loss = 0.0
        for part in torch.split(chosen, rows_at_once(weight, states)):
            batch = states.rows(part, device=weight.device)
            ours = student_log_probabilities(student, batch, weight, inverse_beta=training.inverse_beta)
            teacher = batch.teacher(training.inverse_beta)
            pair = (teacher, ours) if training.loss == "forward_kl" else (ours, teacher)
            share = divergence(*pair).sum() / len(chosen)
            share.backward()  # type: ignore[no-untyped-call]
            loss += float(share.detach())
        if not math.isfinite(loss):
            raise InputError(
                f"the head's loss should stay finite, found {loss} at step {step} of {training.steps}: "
                f"check the reward model, or lower head.learning_rate (it is {training.learning_rate:g})"
            )
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def rows_at_once(output_weight: Tensor, states: TeacherStates) -> int:
    """Return how many states may be compared at once, so that their rows of the output embedding stay small."""
    return max(1, MOST_NUMBERS // (states.candidates.shape[1] * output_weight.shape[1]))


def student_log_probabilities(
    student: nn.Module, states: TeacherStates, output_weight: Tensor, *, inverse_beta: float
) -> Tensor:
    """Return [M, K] log-probabilities of the student on the plausible set."""
    at = states.position
    delta = student(states.hidden[at], states.preference)  # [M, H]
    rows = nn.functional.embedding(states.candidates[at], output_weight).float()  # [M, K, H]
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
