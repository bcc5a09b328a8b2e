"""Scaling makes risks into probabilities and keeps their order; hard replies are those that the gate is wrong about."""

import pytest
import torch

from prosocial.steering.gate import HarmGate
from prosocial.training.gate.on_policy import hard_positions
from prosocial.training.gate.scaling import PlattScaling, apply_scaling, chosen_logits, fit_scaling
from prosocial.training.gate.states import GateStates

CATEGORIES = ("violence", "drugs")
H, V, N = 6, 9, 20000


@pytest.fixture
def gate() -> HarmGate:
    torch.manual_seed(0)
    gate = HarmGate(CATEGORIES, vocabulary_size=V, hidden_size=H, rank=4)
    torch.nn.init.normal_(gate.b)
    torch.nn.init.normal_(gate.a)
    return gate


def drawn(gate: HarmGate, slope: list[float], shift: list[float]) -> GateStates:
    """Positions whose harm is drawn from `sigmoid(slope * logit + shift)`; ten positions a reply."""
    hidden, token = torch.randn(N, H), torch.randint(V, (N,))
    none = torch.zeros(N, 1, dtype=torch.long)
    blank = GateStates(hidden, token, torch.zeros(N, 2), none, none.float(), none[:, 0], torch.arange(N) // 10)
    chance = torch.sigmoid(torch.tensor(slope) * chosen_logits(gate, blank) + torch.tensor(shift))
    return GateStates(**{**vars(blank), "labels": torch.bernoulli(chance)})


def test_a_scaling_finds_slope_and_shift_and_folds_into_the_weights(gate: HarmGate) -> None:
    states = drawn(gate, [0.4, 0.7], [1.0, -2.0])
    scaling = fit_scaling(gate, states)
    torch.testing.assert_close(scaling.slope, torch.tensor([0.4, 0.7]).double(), atol=0.05, rtol=0)
    torch.testing.assert_close(scaling.shift, torch.tensor([1.0, -2.0]).double(), atol=0.1, rtol=0)
    assert scaling.helps
    before = chosen_logits(gate, states)
    apply_scaling(gate, scaling)
    expected = scaling.slope.float() * before + scaling.shift.float()
    torch.testing.assert_close(chosen_logits(gate, states), expected, atol=1e-4, rtol=1e-4)


def test_a_calibrated_gate_is_left_nearly_alone(gate: HarmGate) -> None:
    scaling = fit_scaling(gate, drawn(gate, [1.0, 1.0], [0.0, 0.0]))
    assert (scaling.slope - 1).abs().max() < 0.1 and scaling.shift.abs().max() < 0.1
    assert abs(scaling.scaled - scaling.plain) < 1e-3


def test_a_category_that_never_occurs_stays_finite_and_in_order(gate: HarmGate) -> None:
    states = drawn(gate, [1.0, 1.0], [-60.0, 0.0])
    assert states.labels[:, 0].sum() == 0
    scaling = fit_scaling(gate, states)
    assert scaling.shift.abs().max() < 8 and (scaling.slope > 0).all() and scaling.slope.max() < 8


def test_what_few_replies_say_by_chance_is_not_believed(gate: HarmGate) -> None:
    """A fit always helps on what it was fitted to; on the other half of a few calibrated replies it mostly harms."""
    states = drawn(gate, [1.0, 1.0], [0.0, 0.0])
    few = [fit_scaling(gate, states.rows(torch.arange(start, start + 40))) for start in range(0, 1600, 80)]
    assert sum(not one.helps for one in few) > len(few) / 2


def test_a_scaling_that_does_not_help_says_so() -> None:
    one = torch.ones(1)
    assert not PlattScaling(one, one, plain=0.1, scaled=0.1).helps
    assert PlattScaling(one, one, plain=0.1, scaled=0.09).to_json()["used"]


def test_hard_replies_are_those_that_leak_or_come_near(gate: HarmGate) -> None:
    with torch.no_grad():
        for parameter in gate.parameters():
            parameter.zero_()
        gate.M[0, 0, 0], gate.U[3, 0] = 1.0, 9.0  # token 3 is risky where the first component is positive
        gate.a.fill_(-9.0)
    hidden = torch.zeros(6, H)
    hidden[:, 0] = torch.tensor([0.0, 1.0, -1.0, -1.0, 0.0, 0.0])
    labels = torch.zeros(6, 2)
    labels[4, 1] = 1.0
    none = torch.zeros(6, 1, dtype=torch.long)
    token, reply = torch.tensor([3, 3, 3, 3, 1, 1]), torch.tensor([0, 0, 1, 1, 2, 2])
    states = GateStates(hidden, token, labels, none, none.float(), none[:, 0], reply)
    assert hard_positions(gate, states, near=0.4).tolist() == [True, True, False, False, True, True]
    assert hard_positions(gate, states, near=0.9).tolist() == [False, False, False, False, True, True]
