"""Which on-policy replies are worth training on."""

import torch
from torch import Tensor

from prosocial.steering.gate import HarmGate

from .scaling import chosen_logits
from .states import GateStates, harmful_at


def hard_positions(gate: HarmGate, states: GateStates, *, near: float) -> Tensor:
    """Return [N] bool: the positions of the replies that leaked, and of harmless ones that were nearly stopped.

    Args:
        gate: the gate that the replies were drawn under.
        states: the states of these replies, at least one.
        near: a harmless reply was nearly stopped if the summed risk of one of its tokens is at least this.
    """
    total = torch.sigmoid(chosen_logits(gate, states)).sum(-1)
    marked = harmful_at(states) | (total >= near)
    is_hard = torch.zeros(int(states.reply.max()) + 1, dtype=torch.bool)
    is_hard[states.reply[marked]] = True
    return is_hard[states.reply]
