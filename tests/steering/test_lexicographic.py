"""The invariants of the rule, on random worlds."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prosocial.steering.gate import HarmGate
from prosocial.steering.head import CompactHead
from prosocial.steering.lexicographic import (
    Ceilings,
    Controls,
    Steered,
    admissible,
    candidate_risk,
    disallowed_risk,
    lexicographic,
    reward_table,
)

V, H, B, S, K = 24, 8, 2, 3, 7
ENDS = [1, 2]
few = settings(max_examples=60, deadline=None)
seeds = st.integers(0, 10_000)
odd_numbers = st.sampled_from([math.nan, math.inf, -math.inf, -0.01, 1e30])


class World:
    """Random logits, hidden states, head and gate; inputs as keywords."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.head = CompactHead(["empathy", "helpfulness"], H, 3).requires_grad_(False)
        self.gate = HarmGate(["violence", "drugs", "other"], V, H, 3).requires_grad_(False)
        torch.nn.init.normal_(self.head.B)
        torch.nn.init.normal_(self.gate.b, std=0.3)
        self.weight = torch.randn(V, H)
        self.hidden = torch.randn(B, S, H)
        self.z0 = self.hidden @ self.weight.T
        self.is_end = torch.zeros(V, dtype=torch.bool)
        self.is_end[ENDS] = True
        self.ceilings = Ceilings(torch.tensor([True, True, False]), 0.8, torch.tensor(ENDS), K, 0.5)
        self.controls = Controls(
            torch.tensor([[0.5, 0.5]]), torch.zeros(1, 3), torch.tensor([0.5]), torch.tensor([1.0])
        )

    def run(self, *, z0: Tensor | None = None, hidden: Tensor | None = None, **controls: Tensor) -> Steered:
        return lexicographic(
            self.z0 if z0 is None else z0,
            self.hidden if hidden is None else hidden,
            self.controls._replace(**controls),
            head=self.head,
            gate=self.gate,
            table=reward_table(self.head, self.weight),
            ceilings=self.ceilings,
        )

    def plausible(self) -> Tensor:
        return torch.zeros(B, S, V, dtype=torch.bool).scatter(-1, self.z0.topk(K, -1).indices, True)

    def worst(self, allowed: list[int]) -> Tensor:
        """Worst risk of every token by the formula, one category after the other."""
        risks = []
        for category in range(3):
            logit = (self.hidden @ self.gate.M[category].T) @ self.gate.U.T
            logit += (self.hidden @ self.gate.b[category] + self.gate.a[category])[..., None]
            risks.append(torch.sigmoid(logit) * (category not in allowed))
        return torch.stack(risks).sum(0).clamp(max=1.0)


def admitted(steered: Steered) -> Tensor:
    return torch.isfinite(steered.logits)


def is_closed(steered: Steered) -> bool:
    """Only end tokens are finite, everywhere, and all of them."""
    ends = torch.zeros(V, dtype=torch.bool)
    ends[ENDS] = True
    return bool((admitted(steered) == ends).all()) and bool((steered.safe_set_size == 0).all())


@few
@given(seed=seeds, tau=st.floats(0.05, 0.8))
def test_what_is_admitted_is_plausible_and_safe(seed: int, tau: float) -> None:
    world = World(seed)
    steered = world.run(harm_threshold=torch.tensor([tau]))
    ends = world.is_end
    safe = world.plausible() & ((world.worst([]) <= torch.tensor(tau)) | ends)
    is_empty = ~(safe & ~ends).any(-1)
    assert torch.equal(admitted(steered), torch.where(is_empty[..., None], ends, safe))
    assert torch.equal(steered.safe_set_size, (safe & ~ends).sum(-1))
    assert not torch.isnan(steered.logits).any() and not (steered.logits == torch.inf).any()


@few
@given(seed=seeds)
def test_the_risk_is_the_mean_over_the_models_own_plausible_tokens(seed: int) -> None:
    world = World(seed)
    share = torch.where(world.plausible(), world.z0, -torch.inf).softmax(-1)
    for category in range(3):
        others = [other for other in range(3) if other != category]
        expected = (share * world.worst(others)).sum(-1)
        torch.testing.assert_close(world.run().risk[..., category], expected)
    same = world.run(preference=torch.tensor([[1.0, 0.0]]), allowed=torch.ones(1, 3)).risk
    assert torch.equal(same, world.run().risk)  # no input moves it


@few
@given(seed=seeds, scale=st.floats(0, 100))
def test_the_shift_is_the_formula(seed: int, scale: float) -> None:
    world = World(seed)
    preference = torch.tensor([[0.3, 0.7]])
    steered = world.run(reward_scale=torch.tensor([scale]), preference=preference)
    delta = world.head(world.hidden, preference[:, None])
    expected = world.z0 + scale * world.ceilings.inverse_beta * (delta @ world.weight.T)
    shown = admitted(steered) & (steered.safe_set_size > 0)[..., None]
    torch.testing.assert_close(steered.logits[shown], expected[shown], rtol=1e-4, atol=1e-4 * max(1.0, scale))


@few
@given(seed=seeds, share=st.floats(0, 1), scale=st.floats(0, 100))
def test_no_preference_or_scale_readmits_a_token(seed: int, share: float, scale: float) -> None:
    world = World(seed)
    steered = world.run(preference=torch.tensor([[share, 1 - share]]), reward_scale=torch.tensor([scale]))
    assert torch.equal(admitted(steered), admitted(world.run()))
    assert torch.equal(steered.safe_set_size, world.run().safe_set_size)


@few
@given(seed=seeds)
def test_no_shift_and_an_open_gate_give_the_models_own_logits_bit_for_bit(seed: int) -> None:
    world = World(seed)
    world.ceilings = replace(world.ceilings, threshold=1.0)
    world.z0[0, 0, world.z0[0, 0].argmax()] = -0.0
    steered = world.run(reward_scale=torch.zeros(1), harm_threshold=torch.ones(1))
    expected = torch.where(world.plausible(), world.z0, -torch.inf)
    assert torch.equal(steered.logits.view(torch.int32), expected.view(torch.int32))


@few
@given(seed=seeds, low=st.floats(0, 1), high=st.floats(0, 1), mask=st.integers(0, 7), more=st.integers(0, 7))
def test_allowing_more_never_shrinks_the_safe_set(seed: int, low: float, high: float, mask: int, more: int) -> None:
    world = World(seed)
    low, high = min(low, high), max(low, high)
    bits = torch.tensor([[1.0, 2.0, 4.0]])
    fewer_allowed = ((torch.tensor(mask).int() // bits) % 2).float()
    more_allowed = ((torch.tensor(mask | more).int() // bits) % 2).float()
    less = world.run(allowed=fewer_allowed, harm_threshold=torch.tensor([low]))
    lot = world.run(allowed=more_allowed, harm_threshold=torch.tensor([high]))
    assert (less.safe_set_size <= lot.safe_set_size).all()
    is_set = (less.safe_set_size > 0)[..., None]
    assert not (admitted(less) & is_set & ~admitted(lot)).any()


@few
@given(seed=seeds, tau=st.floats(0.8, 1.0))
def test_no_input_lifts_a_ceiling(seed: int, tau: float) -> None:
    world = World(seed)
    greedy = world.run(allowed=torch.ones(1, 3), harm_threshold=torch.tensor([tau]))
    bounded = world.run(allowed=torch.tensor([[1.0, 1.0, 0.0]]), harm_threshold=torch.tensor([0.8]))
    assert torch.equal(greedy.logits, bounded.logits)
    safe = world.plausible() & ((world.worst([0, 1]) <= 0.8) | world.is_end)
    assert not (admitted(greedy) & ~safe & ~world.is_end).any()


@few
@given(seed=seeds, bad=odd_numbers, name=st.sampled_from(Controls._fields), column=st.integers(0, 1))
def test_an_input_out_of_range_closes_the_gate(seed: int, bad: float, name: str, column: int) -> None:
    world = World(seed)
    value = getattr(world.controls, name).clone()
    value[(0, column) if value.dim() == 2 else 0] = bad
    assert is_closed(world.run(**{name: value}))


@pytest.mark.parametrize("preference", [[0.0, 0.0], [0.7, 0.7], [1.2, -0.2], [0.4, 0.4]])
def test_a_preference_off_the_simplex_closes_the_gate(preference: list[float]) -> None:
    assert is_closed(World(0).run(preference=torch.tensor([preference])))


def test_a_bad_row_does_not_close_its_neighbour() -> None:
    world = World(3)
    both = world.run(harm_threshold=torch.tensor([torch.nan, 0.5]))
    assert (both.safe_set_size[0] == 0).all()
    assert torch.equal(both.logits[1], world.run().logits[1]) and (both.safe_set_size[1] > 0).any()


@few
@given(seed=seeds, bad=st.sampled_from([math.nan, math.inf]), where=st.sampled_from(["z0", "hidden"]))
def test_numbers_gone_wrong_inside_the_model_leave_only_the_end(seed: int, bad: float, where: str) -> None:
    world = World(seed)
    value = getattr(world, where).clone()
    value[0, 1, seed % value.shape[-1]] = bad
    steered, sound = world.run(**{where: value}), world.run()
    ends = world.is_end
    assert torch.equal(admitted(steered)[0, 1], ends) and steered.safe_set_size[0, 1] == 0
    assert (steered.risk[0, 1] == 1).all() and not torch.isnan(steered.logits).any()
    assert torch.equal(steered.logits[1], sound.logits[1]) and torch.equal(steered.logits[0, 0], sound.logits[0, 0])


def test_the_end_is_admitted_when_nothing_is_safe_even_if_it_is_not_plausible() -> None:
    world = World(5)
    world.z0[..., ENDS] = -50.0
    assert not world.plausible()[..., ENDS].any()
    steered = world.run(harm_threshold=torch.zeros(1))
    assert is_closed(steered) and (steered.logits[..., ENDS] == -50.0).all()
    world.z0[..., ENDS] = -torch.inf
    assert is_closed(world.run(harm_threshold=torch.zeros(1)))


def slow_logits(world: World, h: Tensor, z0: Tensor, *, p: list[float], tau: float, scale: float) -> list[float]:
    """The rule at one position as its docstring says it: token by token, in float64."""
    head = {name: value.double() for name, value in world.head.named_parameters()}
    gate = {name: value.double() for name, value in world.gate.named_parameters()}
    mixed = sum((weight * core for weight, core in zip(p, head["G"], strict=True)), torch.zeros(3, 3).double())
    delta = head["B"] @ (mixed @ (head["A"] @ h))
    result = [-math.inf] * V
    for token in sorted(range(V), key=lambda token: -float(z0[token]))[:K]:
        directions = zip(gate["M"], gate["b"], gate["a"], strict=True)
        risks = [torch.sigmoid(gate["U"][token] @ m @ h + b @ h + a) for m, b, a in directions]
        if token in ENDS or float(sum(risks)) <= tau:
            shift = world.weight[token].double() @ delta
            result[token] = float(z0[token] + scale * world.ceilings.inverse_beta * shift)
    if all(math.isinf(value) for token, value in enumerate(result) if token not in ENDS):
        return [float(z0[token]) if token in ENDS else -math.inf for token in range(V)]
    return result


@few
@given(seed=seeds, share=st.floats(0, 1), tau=st.sampled_from([0.0, 0.4, 0.8]), scale=st.sampled_from([0.0, 1.0, 8.0]))
def test_the_probabilities_are_those_of_the_rule_token_by_token(
    seed: int, share: float, tau: float, scale: float
) -> None:
    world = World(seed)
    p = [share, 1 - share]
    steered = world.run(
        preference=torch.tensor([p]), harm_threshold=torch.tensor([tau]), reward_scale=torch.tensor([scale])
    )
    shares = steered.logits.double().softmax(-1)
    for row, step in product(range(B), range(S)):
        h, z0 = world.hidden[row, step].double(), world.z0[row, step].double()
        expected = torch.tensor(slow_logits(world, h, z0, p=p, tau=tau, scale=scale), dtype=torch.float64).softmax(-1)
        torch.testing.assert_close(shares[row, step], expected, rtol=1e-4, atol=1e-6)
        assert torch.equal(shares[row, step] > 0, expected > 0)


def test_the_end_is_exempt_from_the_gate() -> None:
    world = World(7)
    world.gate.U[ENDS] = 0.0
    world.gate.a.fill_(9.0)  # everything is a risk
    world.gate.U[ENDS] += 5.0
    world.z0[..., ENDS] = world.z0.amax() + 1
    assert is_closed(world.run())


def test_fewer_tokens_than_candidates_is_no_error() -> None:
    world = World(8)
    world.ceilings = replace(world.ceilings, plausible_k=1000, threshold=1.0)
    assert admitted(world.run(harm_threshold=torch.ones(1))).all()


def test_a_broken_gate_admits_nothing() -> None:
    world = World(9)
    world.gate.M[:] = torch.nan
    assert is_closed(world.run())


@few
@given(bad=odd_numbers, name=st.sampled_from(Controls._fields))
def test_nothing_is_left_of_a_row_with_an_input_out_of_range(bad: float, name: str) -> None:
    controls = Controls(torch.tensor([[0.5, 0.5]] * 2), torch.ones(2, 3), torch.full((2,), 0.5), torch.ones(2))
    getattr(controls, name)[0, ...] = bad
    bounded = admissible(controls, World(0).ceilings)
    assert all((value[0] == 0).all() for value in bounded)
    assert (
        bounded.allowed[1].tolist() == [1, 1, 0] and bounded.harm_threshold[1] == 0.5 and bounded.reward_scale[1] == 1
    )


def test_a_risk_at_the_threshold_is_safe() -> None:
    world = World(10)
    world.ceilings = replace(world.ceilings, allowed=torch.ones(3, dtype=torch.bool))
    steered = world.run(allowed=torch.ones(1, 3), harm_threshold=torch.zeros(1))
    assert torch.equal(admitted(steered), world.plausible())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_risk_whose_logit_is_not_finite_is_the_highest(bad: float) -> None:
    world = World(11)
    world.gate.U[3] = bad
    every = torch.arange(V).expand(B, S, V)
    worst = disallowed_risk(candidate_risk(world.gate, world.hidden, every), torch.zeros(1, 3))
    assert (worst[..., 3] == 1).all() and (worst[..., 4:] < 1).any()
    assert torch.allclose(worst[..., 4:], world.worst([])[..., 4:])
