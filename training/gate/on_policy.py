"""On-policy replies: which of the replies that a gated model gave are worth training on."""

import torch
from torch import Tensor

from prosocial.steering.gate import HarmGate

from .scaling import chosen_logits
from .states import GateStates


def hard_positions(gate: HarmGate, states: GateStates, *, near: float) -> Tensor:
    """Return [N] bool: the positions of replies that leaked, and of harmless ones that came near to being stopped.

    Args:
        gate: the one that the replies were drawn under.
        states: of those replies.
        near: a harmless reply counts where the summed risk of a token in it is at least this.
    """
    total = torch.sigmoid(chosen_logits(gate, states)).sum(-1)
    marked = (states.labels.amax(-1) == 1.0) | (total >= near)
    is_hard = torch.zeros(int(states.reply.max()) + 1, dtype=torch.bool)
    is_hard[states.reply[marked]] = True
    return is_hard[states.reply]
