"""Platt scaling of the gate: one slope and one shift of the risk logits per category, folded into its weights.

`slope_c * (u_v . M_c h + b_c . h + a_c) + shift_c` is again a gate, so the graph needs nothing more for it. Source:
Platt 1999, "Probabilistic outputs for support vector machines"; Guo et al. 2017 (arXiv 1706.04599), section 4, where a
slope alone is called temperature scaling.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from prosocial.steering.gate import HarmGate

from .states import GateStates

PULL = 10.0  # weight, in positions, of the pull towards slope 1 and shift 0, for categories that hardly occur
N_STEPS = 60
POSITIONS_AT_ONCE = 8192


@dataclass(frozen=True)
class PlattScaling:
    """A scaling, and its effect on replies that it was not fitted to.

    Attributes:
        slope: [C], above 0, so that the order of risks within a category stays.
        shift: [C].
        plain, scaled: mean cross-entropy per position without and with scaling; each half of the replies is scaled by
            the fit to the other half.
    """

    slope: Tensor
    shift: Tensor
    plain: float
    scaled: float

    @property
    def helps(self) -> bool:
        """Whether it lowers the cross-entropy."""
        return self.scaled < self.plain

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "used": self.helps,
            "slope": self.slope.tolist(),
            "shift": self.shift.tolist(),
            "cross_entropy_plain": self.plain,
            "cross_entropy_scaled": self.scaled,
        }


def fit_scaling(gate: HarmGate, states: GateStates) -> PlattScaling:
    """Fit slope and shift to positions that the gate was not trained on, and cross-validate them on two halves.

    Args:
        gate: a trained gate.
        states: states of at least two replies that it was not trained on.
    """
    logits, labels = chosen_logits(gate, states).double(), states.labels.double()
    is_even = states.reply % 2 == 0
    plain, scaled = 0.0, 0.0
    for half in (is_even, ~is_even):
        slope, shift = _fit(logits[~half], labels[~half])
        plain += float(functional.binary_cross_entropy_with_logits(logits[half], labels[half], reduction="sum"))
        moved = slope * logits[half] + shift
        scaled += float(functional.binary_cross_entropy_with_logits(moved, labels[half], reduction="sum"))
    slope, shift = _fit(logits, labels)
    return PlattScaling(slope, shift, plain / len(states), scaled / len(states))


def apply_scaling(gate: HarmGate, scaling: PlattScaling) -> None:
    """Fold a scaling into the gate's weights, in place."""
    with torch.no_grad():
        slope = scaling.slope.to(gate.a.dtype)
        gate.M.mul_(slope[:, None, None])
        gate.b.mul_(slope[:, None])
        gate.a.mul_(slope).add_(scaling.shift.to(gate.a.dtype))


@torch.no_grad()
def chosen_logits(gate: HarmGate, states: GateStates) -> Tensor:
    """Return the risk logits [N, C] of the tokens that were chosen."""
    device = gate.a.device
    parts = torch.split(torch.arange(len(states)), POSITIONS_AT_ONCE)
    chosen = ((states.hidden[part].float().to(device), states.token[part, None].to(device)) for part in parts)
    return torch.cat([gate.risk_logits(hidden, token)[:, 0] for hidden, token in chosen])


def _fit(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slope [C] and shift [C] of least cross-entropy for logits and labels [N, C] (float64)."""
    log_slope = torch.zeros(logits.shape[1], dtype=torch.float64, requires_grad=True)
    shift = torch.zeros_like(log_slope, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_slope, shift], max_iter=N_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        moved = log_slope.exp() * logits + shift
        loss = functional.binary_cross_entropy_with_logits(moved, labels, reduction="sum")
        loss = (loss + PULL * (log_slope.square() + shift.square()).sum()) / max(1, len(logits))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return log_slope.exp().detach(), shift.detach()
