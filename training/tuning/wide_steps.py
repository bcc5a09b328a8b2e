"""Optimiser steps in float32 for weights in bfloat16.

A weight in bfloat16 has 8 significant bits: an update of less than 1/512 of it is lost. So the optimiser keeps the
other 16 bits of a float32 weight beside it (Split SGD, Kalamkar et al., arXiv 2005.04680): 2 bytes per weight where a
float32 copy takes 4, and forward and backward passes see plain bfloat16 weights.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.rmsprop import rmsprop

AT_ONCE = 2**22  # weights that are in float32 at a time
HIGH = 16  # bits of a float32 number that bfloat16 has


class WideSteps(torch.optim.Optimizer):
    """AdamW or RMSprop whose weights are float32 numbers, rounded to bfloat16 in the model.

    Args:
        parameters: weights in bfloat16.
        kind: `torch.optim.AdamW` or `torch.optim.RMSprop`.
        settings: settings of `kind`; the others have the defaults of torch.
    """

    def __init__(self, parameters: Iterable[Tensor], kind: type[torch.optim.Optimizer], settings: Mapping[str, Any]):
        weights = list(parameters)
        self.is_adam = kind is torch.optim.AdamW
        super().__init__(weights, kind(weights, **settings).defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._step(weight, self._state(weight), group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state; torch would round it to the weights' dtype."""
        super().load_state_dict(state_dict)
        weights = [weight for group in self.param_groups for weight in group["params"]]
        for index, state in state_dict["state"].items():
            self.state[weights[index]] = {name: value.to(weights[index].device) for name, value in state.items()}

    def wide(self, weight: Tensor) -> Tensor:
        """Return a weight in float32."""
        low = self.state[weight].get("low")
        return weight.detach().float() if low is None else joined(weight.detach(), low)

    def _state(self, weight: Tensor) -> dict[str, Tensor]:
        """Return a weight's state: the low bits, the running means of gradients, and the number of steps."""
        state: dict[str, Tensor] = self.state[weight]
        if not state:
            state["low"] = torch.zeros_like(weight, dtype=torch.int16, memory_format=torch.contiguous_format)
            for name in ("mean", "square")[0 if self.is_adam else 1 :]:
                state[name] = torch.zeros_like(weight, dtype=torch.float32, memory_format=torch.contiguous_format)
            state["step"] = torch.zeros(())
        return state

    def _step(self, weight: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        flat, gradients = weight.view(-1), weight.grad.reshape(-1)  # type: ignore[union-attr]
        parts = {name: value.view(-1) for name, value in state.items() if name != "step"}
        for start in range(0, len(flat), AT_ONCE):
            at = slice(start, start + AT_ONCE)
            wide = joined(flat[at], parts["low"][at])
            step = state["step"].clone()
            if self.is_adam:
                _adam(wide, gradients[at].float(), parts["mean"][at], parts["square"][at], step, group)
            else:
                _rmsprop(wide, gradients[at].float(), parts["square"][at], step, group)
            flat[at], parts["low"][at] = halves(wide)
        state["step"].copy_(step)


def joined(high: Tensor, low: Tensor) -> Tensor:
    """Return the float32 numbers of their two halves.

    Examples:
        >>> number = torch.tensor([0.1, -3e-9])
        >>> bool((joined(*halves(number)) == number).all())
        True
    """
    return ((high.view(torch.int16).int() << HIGH) + low).view(torch.float32)


def halves(wide: Tensor) -> tuple[Tensor, Tensor]:
    """Return float32 numbers rounded to bfloat16, and the difference of their bits as an int16.

    Half a unit up, the one difference that int16 cannot hold, is stored as the number one float32 unit below.
    """
    high = wide.to(torch.bfloat16)
    low = wide.view(torch.int32) - (high.view(torch.int16).int() << HIGH)
    return high, low.clamp_(max=2**15 - 1).to(torch.int16)


def _adam(wide: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, step: Tensor, group: dict[str, Any]) -> None:
    adamw(
        [wide],
        [gradient],
        [mean],
        [square],
        [],
        [step],
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )


def _rmsprop(wide: Tensor, gradient: Tensor, square: Tensor, step: Tensor, group: dict[str, Any]) -> None:
    rmsprop(
        [wide],
        [gradient],
        [square],
        [],
        [],
        [step],
        lr=group["lr"],
        alpha=group["alpha"],
        eps=group["eps"],
        weight_decay=group["weight_decay"],
        momentum=0.0,
        centered=False,
    )
