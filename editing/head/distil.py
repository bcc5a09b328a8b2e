"""Distilling a reward model into the compact head.

Teacher: the edited model's logits plus `(1 / beta) * (log pi_p - log pi)`, the log-ratio of the reward model under
preference p to the unadapted model. (GenARM, arXiv 2410.08193, adds `log pi_p` itself; the ratio leaves out the part
that every preference shares with the base, so that an untrained reward model shifts nothing.)
Student: `z0 + (1 / beta) * w_v . B G(p) A h`. Both are compared on the plausible set, the K tokens with the highest z0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..batches import EncodedReply, length_sorted_batches, pad_replies
from ..reward.loss import preference_grid
from ..reward.model import RewardModel
from ..settings import Count, Positive, Settings
from .module import CompactHead


class DistilTraining(Settings):
    """How to distil.

    Attributes:
        rank: r of the head.
        plausible_k: K, the size of the plausible set.
        inverse_beta: 1 / beta, the strength at which teacher and student are compared.
        sequences: how many replies the teacher reads.
        passes: how often it reads each, under new preferences each time.
    """

    rank: Count = 32
    plausible_k: Count = 128
    inverse_beta: Positive = 1.0
    sequences: Count = 2000
    passes: Count = 2
    max_tokens: Count = 1024
    steps: Count = 500
    batch_size: Count = 512
    learning_rate: Positive = 5e-3
    concentration: Positive = 0.4


@dataclass(frozen=True)
class TeacherStates:
    """What the teacher says at N positions.

    Attributes:
        hidden: [N, H] last hidden states of the unadapted model.
        preference: [N, k].
        candidates: [N, K] plausible token ids.
        z0: [N, K] the unadapted model's logits of the candidates.
        shift: [N, K] log pi_p - log pi of the candidates.
    """

    hidden: Tensor
    preference: Tensor
    candidates: Tensor
    z0: Tensor
    shift: Tensor

    def __len__(self) -> int:
        return len(self.hidden)

    def rows(self, chosen: Tensor) -> "TeacherStates":
        """Return the states at some positions."""
        return TeacherStates(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


@torch.no_grad()
def collect_states(
    reward: RewardModel,
    sequences: Sequence[EncodedReply],
    preferences: Tensor,
    *,
    plausible_k: int,
    pad_id: int,
    batch_size: int = 64,
    on_batch: Callable[[int], None] = lambda n: None,
) -> TeacherStates:
    """Run teacher and unadapted model over every reply position, sequence i under preference i of [n, k]."""
    found: list[TeacherStates] = []
    hidden_states: list[Tensor] = []
    embedding = reward.model.get_output_embeddings()  # type: ignore[operator]
    hook = embedding.register_forward_pre_hook(lambda module, arguments: hidden_states.append(arguments[0]))
    try:
        for rows in length_sorted_batches(sequences, batch_size=batch_size):
            batch = pad_replies(sequences, rows, pad_id=pad_id)
            hidden_states.clear()
            own = reward.logits(batch.input_ids, batch.attention_mask, None).float()
            hidden = hidden_states[0].float()
            adapted = reward.logits(batch.input_ids, batch.attention_mask, preferences[batch.rows]).float()
            at = batch.predicts_reply
            z0, candidates = own[at].topk(min(plausible_k, own.shape[-1]), dim=-1)
            shift = (adapted[at].log_softmax(-1) - own[at].log_softmax(-1)).gather(-1, candidates)
            preference = preferences[batch.rows][:, None].expand(-1, at.shape[1], -1)[at]
            found.append(TeacherStates(hidden[at], preference, candidates, z0, shift))
            on_batch(len(rows))
    finally:
        hook.remove()
    return _joined(found)


def collect_passes(
    reward: RewardModel,
    sequences: Sequence[EncodedReply],
    *,
    training: DistilTraining,
    pad_id: int,
    seed: int,
    on_batch: Callable[[int], None] = lambda n: None,
) -> TeacherStates:
    """Let the teacher read the sequences `training.passes` times, each time under new preferences."""
    generator = torch.Generator().manual_seed(seed)
    n_attributes = len(reward.config.attributes)
    found = [
        collect_states(
            reward,
            sequences,
            preference_grid(len(sequences), n_attributes, concentration=training.concentration, generator=generator),
            plausible_k=training.plausible_k,
            pad_id=pad_id,
            on_batch=on_batch,
        )
        for _ in range(training.passes)
    ]
    return _joined(found)


def distil_head(
    states: TeacherStates,
    output_weight: Tensor,
    *,
    attributes: Sequence[str],
    training: DistilTraining,
    seed: int,
    on_step: Callable[[], None] = lambda: None,
) -> CompactHead:
    """Fit a head to the teacher's states by KL(teacher || student) on the plausible set.

    Args:
        states: from `collect_states`.
        output_weight: [V, H] the model's output embedding.
        attributes: names in the order of the preference vector.
        training: how.
        seed: seeds the initial values and the batches.
        on_step: called after every step.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = CompactHead(attributes, hidden_size=states.hidden.shape[1], rank=training.rank)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(head.parameters(), lr=training.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.learning_rate, total_steps=training.steps + 1, pct_start=0.1
    )
    weight = output_weight.detach().float()
    for _ in range(training.steps):
        chosen = torch.randint(len(states), (training.batch_size,), generator=generator)
        loss = divergence(head, states.rows(chosen), weight, inverse_beta=training.inverse_beta).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        on_step()
    return head.eval()


def divergence(head: CompactHead, states: TeacherStates, output_weight: Tensor, *, inverse_beta: float) -> Tensor:
    """Return [N] KL(teacher || student) on the plausible set, in nats."""
    delta = head(states.hidden, states.preference)  # [N, H]
    rows = nn.functional.embedding(states.candidates, output_weight)  # [N, K, H]
    shift: Tensor = (rows @ delta.unsqueeze(-1)).squeeze(-1)  # [N, K]
    student = (states.z0 + inverse_beta * shift).log_softmax(-1)
    teacher = (states.z0 + inverse_beta * states.shift).log_softmax(-1)
    kl: Tensor = (teacher.exp() * (teacher - student)).sum(-1)
    return kl


@torch.no_grad()
def explained_share(head: CompactHead, states: TeacherStates, output_weight: Tensor, *, inverse_beta: float) -> float:
    """Return 1 - KL(teacher || student) / KL(teacher || unadapted): 1 is a perfect head, 0 one that does nothing."""
    student = divergence(head, states, output_weight.float(), inverse_beta=inverse_beta).mean()
    base = states.z0.log_softmax(-1)
    teacher = (states.z0 + inverse_beta * states.shift).log_softmax(-1)
    unadapted = (teacher.exp() * (teacher - base)).sum(-1).mean()
    return float(1 - student / unadapted) if unadapted > 0 else 0.0


def _joined(states: Sequence[TeacherStates]) -> TeacherStates:
    names = TeacherStates.__dataclass_fields__
    return TeacherStates(*(torch.cat([getattr(part, name) for part in states]) for name in names))
