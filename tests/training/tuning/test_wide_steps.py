"""Weights in bfloat16 take the steps of float32 weights, and keep what bfloat16 cannot hold."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prosocial.training.tuning import wide_steps
from prosocial.training.tuning.wide_steps import WideSteps, halves, joined

KINDS: list[tuple[Any, dict[str, Any]]] = [
    (torch.optim.AdamW, {"lr": 5e-7, "weight_decay": 0.0}),
    (torch.optim.RMSprop, {"lr": 5e-7}),
]


def gradients(step: int) -> Tensor:
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(step)).bfloat16()


def start() -> Tensor:
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(99)).bfloat16()


def stepped(weight: Tensor, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        weight.grad = gradients(step).to(weight.dtype)
        optimizer.step()


@given(st.floats(-(2.0**126), 2.0**126, width=32))
def test_two_halves_are_the_number_again(value: float) -> None:
    number = torch.tensor([value])
    high, low = halves(number)
    apart = (joined(high, low).view(torch.int32) - number.view(torch.int32)).abs()
    assert int(apart) <= (1 if int(number.view(torch.int32)) & 0xFFFF == 0x8000 else 0)  # half a unit has no place
    assert torch.equal(high, number.bfloat16())


@pytest.mark.parametrize(("kind", "settings"), KINDS, ids=["adamw", "rmsprop"])
def test_small_steps_add_up_as_in_float32(kind: Any, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide_steps, "AT_ONCE", 7)
    narrow, wide, plain = (torch.nn.Parameter(start()) for _ in range(3))
    reference = torch.nn.Parameter(start().float())
    ours = WideSteps([wide], kind, settings)
    stepped(wide, ours, range(50))
    stepped(reference, kind([reference], **settings), range(50))
    stepped(plain, kind([plain], **settings), range(50))  # the control: torch's own steps in bfloat16

    reference.requires_grad_(False)
    moved = (reference - narrow.detach().float()).abs()
    assert torch.allclose(ours.wide(wide), reference, rtol=0, atol=float(moved.max()) * 1e-3 + 1e-7)
    assert torch.equal(wide, ours.wide(wide).bfloat16())
    lost = (plain.detach().float() - reference).abs().mean() / moved.mean()
    assert lost > 0.5


@pytest.mark.parametrize(("kind", "settings"), KINDS, ids=["adamw", "rmsprop"])
def test_a_state_that_was_stored_goes_on_as_before(kind: Any, settings: dict[str, Any]) -> None:
    whole, halted = torch.nn.Parameter(start()), torch.nn.Parameter(start())
    once = WideSteps([whole], kind, settings)
    stepped(whole, once, range(8))
    first = WideSteps([halted], kind, settings)
    stepped(halted, first, range(5))
    second = WideSteps([halted], kind, settings)
    second.load_state_dict(first.state_dict())
    stepped(halted, second, range(5, 8))

    assert torch.equal(once.wide(whole), second.wide(halted))
