"""The distance of a head to its teacher: KL, top-1 and the share of the KL that it explains, by rank."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from .distil import distil_head, divergence, rows_at_once, student_log_probabilities
from .settings import DistilTraining
from .states import TeacherStates


@dataclass(frozen=True)
class HeadDistance:
    """A head compared with its teacher on the plausible set, means over states.

    Attributes:
        kl: KL(teacher || head) in nats.
        kl_unsteered: KL(teacher || unadapted model), the most there is to explain.
        top1: share of states at which both have the same most likely token.
    """

    kl: float
    kl_unsteered: float
    top1: float

    @property
    def explained(self) -> float:
        """1 - kl / kl_unsteered: 1 is a perfect head, 0 one without effect (or a teacher without effect)."""
        return 1 - self.kl / self.kl_unsteered if self.kl_unsteered > 0 else 0.0

    def to_json(self) -> dict[str, float]:
        """Return plain JSON."""
        return asdict(self) | {"explained": self.explained}


@torch.no_grad()
def head_distance(
    head: nn.Module, states: TeacherStates, output_weight: Tensor, *, inverse_beta: float
) -> HeadDistance:
    """Compare a head with its teacher at the teacher's states.

    Args:
        output_weight: [V, H] the model's output embedding. inverse_beta: the strength of both.
    """
    totals, here = torch.zeros(3, dtype=torch.float64), head.to(output_weight.device)
    for chosen in torch.split(torch.arange(len(states)), rows_at_once(output_weight, states)):
        batch = states.rows(chosen, device=output_weight.device)
        student = student_log_probabilities(here, batch, output_weight, inverse_beta=inverse_beta)
        teacher, own = batch.teacher(inverse_beta), batch.z0.log_softmax(-1)
        same = (teacher.argmax(-1) == student.argmax(-1)).float()
        totals += torch.stack([divergence(teacher, student).sum(), divergence(teacher, own).sum(), same.sum()]).cpu()
    head.cpu()
    kl, kl_unsteered, top1 = (totals / len(states)).tolist()
    return HeadDistance(kl, kl_unsteered, top1)


def distance_by_rank(
    train: TeacherStates,
    held_out: TeacherStates,
    output_weight: Tensor,
    *,
    attributes: Sequence[str],
    training: DistilTraining,
    ranks: Sequence[int],
    seed: int,
) -> dict[int, HeadDistance]:
    """Fit a head of every rank to the same states and compare each with the teacher on held-out ones."""
    distances = {}
    for rank in ranks:
        settings = training.model_copy(update={"rank": rank})
        head = distil_head(train, output_weight, attributes=attributes, training=settings, seed=seed)
        distances[rank] = head_distance(head, held_out, output_weight, inverse_beta=training.inverse_beta)
    return distances
