"""Each conflict method on problems whose answer is known, and what all of them share."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prosocial.core.errors import UnknownNameError
from prosocial.training.reward.conflict import (
    CAGRAD_RADIUS,
    CONFLICT_METHODS,
    GRAMIAN_METHODS,
    bargaining_solution,
    combination,
    conflicting_share,
    project_on_dual_cone,
)
from prosocial.training.reward.famo import Famo
from prosocial.training.reward.gradients import Part, combined_gradients, weighted_gradients
from prosocial.training.reward.pblora.row_jacobian import RowJacobian

CONFLICTING = torch.tensor([[2.0, 0.0], [-1.0, 1.0]])
EQUAL = torch.tensor([0.5, 0.5])


def step(gradients: Tensor, preference: Tensor, method: str) -> Tensor:
    return combination(gradients @ gradients.T, preference, method=method) @ gradients


def projected(first: Tensor, second: Tensor) -> Tensor:
    """`first` without what conflicts with `second`."""
    return first - min(0.0, float(first @ second)) / (second @ second) * second


@pytest.mark.parametrize("preference", [EQUAL, torch.tensor([0.9, 0.1])])
@pytest.mark.parametrize("method", ["pcgrad", "upgrad"])
def test_two_conflicting_gradients_are_projected_off_each_other_and_then_weighted(
    method: str, preference: Tensor
) -> None:
    """With two gradients the dual cone's nearest point is PCGrad's projection."""
    first, second = CONFLICTING
    expected = preference[0] * projected(first, second) + preference[1] * projected(second, first)

    assert torch.allclose(step(CONFLICTING, preference, method), expected, atol=1e-4)


def test_mgda_takes_the_point_of_least_norm_between_two_gradients() -> None:
    first, second = CONFLICTING
    share = float((second - first) @ second / (first - second).square().sum())  # of the first, from the derivative

    assert 0 < share < 1
    assert torch.allclose(step(CONFLICTING, EQUAL, "mgda"), share * first + (1 - share) * second, atol=1e-2)


def test_nash_mtl_gives_orthogonal_gradients_the_inverse_of_their_norms() -> None:
    weights = combination(torch.diag(torch.tensor([4.0, 1.0])), EQUAL, method="nash_mtl")

    assert torch.allclose(weights, torch.tensor([1 / 3, 2 / 3]), atol=1e-4)  # 1/2 to 1, scaled to a sum of 1


def test_the_bargaining_solution_solves_its_equation() -> None:
    gradients = np.random.default_rng(0).standard_normal((5, 40))
    gram = gradients @ gradients.T / 40
    solution = bargaining_solution(gram)

    assert (solution > 0).all()
    assert np.allclose(gram @ solution, 1 / solution, atol=1e-4)


def test_cagrad_finds_the_best_worst_case_in_its_ball() -> None:
    """Its answer against a scan of the dual problem over the weights of two gradients."""
    first, second = CONFLICTING
    mean = CONFLICTING.mean(0)
    radius = CAGRAD_RADIUS * mean.norm()
    shares = torch.linspace(0, 1, 20001)[:, None]
    mixed = shares * first + (1 - shares) * second
    best = mixed[(mixed @ mean + radius * mixed.norm(dim=1)).argmin()]
    expected = mean + radius * best / best.norm()
    found = step(CONFLICTING, EQUAL, "cagrad")

    assert torch.nn.functional.cosine_similarity(found, expected, dim=0) > 1 - 1e-5
    assert (CONFLICTING @ found).min() > (CONFLICTING @ mean).min()


def test_famo_weighs_by_the_inverse_of_the_losses_and_then_by_how_little_they_fell() -> None:
    famo, losses = Famo(2), torch.tensor([1.0, 3.0])
    first = famo.combination(losses, EQUAL)
    for _ in range(20):
        famo.update(losses, torch.tensor([0.5, 2.9]))

    assert torch.allclose(first, torch.tensor([0.75, 0.25]), atol=1e-4)
    assert famo.combination(losses, EQUAL)[0] < first[0] - 0.05  # the first loss falls faster: it counts for less


def test_famos_history_replayed_gives_the_same_weights() -> None:
    famo = Famo(3)
    for index in range(5):
        famo.update(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.9, 1.5, 3.0 - index / 10]))
    again = Famo(3, famo.history)
    losses, preference = torch.tensor([0.7, 1.1, 2.0]), torch.tensor([0.2, 0.3, 0.5])

    assert torch.equal(again.combination(losses, preference), famo.combination(losses, preference))


def test_without_resolution_the_step_is_the_weighted_sum() -> None:
    preference = torch.tensor([0.3, 0.7])

    assert torch.allclose(step(CONFLICTING, preference, "none"), preference @ CONFLICTING)


@pytest.mark.parametrize("method", CONFLICT_METHODS)
@pytest.mark.parametrize("corner", range(3))
def test_at_a_corner_the_step_is_that_attributes_gradient(method: str, corner: int) -> None:
    gradients = torch.tensor([[2.0, 0.0, 1.0], [-1.0, 1.0, 0.0], [-3.0, -1.0, 0.5]])
    preference = torch.eye(3)[corner]
    if method == "famo":
        found = Famo(3).combination(torch.tensor([1.0, 2.0, 3.0]), preference) @ gradients
    else:
        found = step(gradients, preference, method)

    assert torch.allclose(found, gradients[corner], atol=1e-5)


@pytest.mark.parametrize("method", ["pcgrad", "cagrad", "mgda", "nash_mtl", "upgrad"])
def test_without_conflict_and_with_equal_norms_nothing_is_resolved(method: str) -> None:
    gradients = torch.eye(2)

    assert torch.allclose(step(gradients, EQUAL, method), EQUAL, atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_no_step_of_upgrad_conflicts_with_any_gradient(seed: int, n: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    gradients = torch.randn(n, 8, generator=generator) * torch.rand(n, 1, generator=generator)
    preference = torch.rand(n, generator=generator) + 0.01
    found = step(gradients, preference, "upgrad")

    assert (gradients @ found >= -1e-3 * gradients.norm(dim=1) * found.norm()).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_the_projection_is_the_nearest_point_of_the_dual_cone(seed: int, n: int) -> None:
    """Its optimality conditions: v >= u, G v >= 0, and one of the two is equal for every row."""
    rows = torch.randn(n, 12, generator=torch.Generator().manual_seed(seed)).double()
    wanted = torch.eye(n).double()
    gram = rows @ rows.T
    found = project_on_dual_cone(wanted, gram)
    slack, conflict = found - wanted, found @ gram / gram.diagonal().mean()

    assert (slack >= 0).all() and (conflict >= -1e-4).all()
    assert torch.allclose(slack * conflict, torch.zeros_like(slack), atol=1e-3)


@pytest.mark.parametrize("method", GRAMIAN_METHODS)
@pytest.mark.parametrize("gram", [torch.zeros(2, 2), torch.tensor([[1.0, -1.0], [-1.0, 1.0]])])
def test_vanishing_and_opposed_gradients_give_finite_weights(method: str, gram: Tensor) -> None:
    assert combination(gram, torch.tensor([0.4, 0.6]), method=method).isfinite().all()


def test_the_order_of_projections_follows_the_seed() -> None:
    gradients = torch.randn(5, 3, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(0)
    found = [combination(gradients @ gradients.T, torch.ones(5), method="pcgrad", seed=seed) for seed in (1, 1, 2)]

    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert torch.initial_seed() == 0  # the caller's own random numbers are left alone


def test_conflicts_are_counted_in_pairs() -> None:
    gradients = torch.tensor([[1.0, 0.0], [-1.0, 0.1], [0.5, 1.0]])

    assert conflicting_share(gradients @ gradients.T) == pytest.approx(2 / 3)
    assert conflicting_share(torch.ones(1, 1)) == 0.0


def test_an_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="unknown conflict method 'magic': known are cagrad, mgda, nash_mtl"):
        combination(torch.eye(2), EQUAL, method="magic")


def parts(parameter: torch.nn.Parameter, n: int, jacobian: RowJacobian | None = None) -> list[Part]:
    """Two losses and an anchor in n equal parts, each of two rows."""
    goals = torch.tensor([[1.0, 0.2], [-1.0, 0.5]])

    def part() -> Part:
        spread = parameter.expand(2, 2) if jacobian is None else jacobian.spread(parameter, 2)
        return Part((goals * spread).sum(-1), lambda rewards: (rewards / n, rewards.square().sum() / n))

    return [part() for _ in range(n)]


@pytest.mark.parametrize("method", GRAMIAN_METHODS)
def test_parts_add_up_to_the_whole_batch(method: str) -> None:
    found = []
    for n in (1, 3):
        parameter, jacobian = torch.nn.Parameter(torch.tensor([1.0, 1.0])), RowJacobian()
        gramian = combined_gradients(
            parts(parameter, n, jacobian),
            [parameter],
            torch.ones(2, dtype=torch.bool),
            lambda gram: combination(gram, EQUAL, method=method),
            jacobian=jacobian,
        )
        assert parameter.grad is not None
        found.append((gramian, parameter.grad))

    assert torch.allclose(found[0][0], found[1][0]) and torch.allclose(found[0][1], found[1][1], atol=1e-6)


def test_the_two_ways_to_a_weighted_sum_are_one() -> None:
    one, other = (torch.nn.Parameter(torch.tensor([1.0, 1.0])) for _ in range(2))
    weights, jacobian = torch.tensor([0.3, 0.7]), RowJacobian()
    weighted_gradients(parts(one, 2), [one], lambda losses: weights)
    combined_gradients(parts(other, 2, jacobian), [other], weights > 0, lambda gram: weights, jacobian=jacobian)

    assert one.grad is not None and other.grad is not None and torch.allclose(one.grad, other.grad)


def test_a_loss_that_takes_no_part_counts_as_zero() -> None:
    parameter, jacobian = torch.nn.Parameter(torch.tensor([1.0, 1.0])), RowJacobian()
    carried = torch.tensor([True, False])
    rewards = jacobian.spread(parameter, 1).sum(-1)
    part = Part(rewards, lambda found: (torch.cat([found, 100 * found]), None))
    gramian = combined_gradients([part], [parameter], carried, lambda gram: carried.double(), jacobian=jacobian)

    assert torch.equal(gramian, torch.tensor([[2.0, 0.0], [0.0, 0.0]]).double())
    assert parameter.grad is not None and torch.equal(parameter.grad, torch.ones(2))


def test_a_method_whose_solver_is_not_there_names_its_extra_and_the_others_go_on() -> None:
    program = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("cvxpy", "clarabel", "ecos", "quadprog", "qpsolvers"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker())
import torch
from prosocial.core.errors import MissingExtraError
from prosocial.training.reward.conflict import GRAMIAN_METHODS, combination
for method in GRAMIAN_METHODS:
    try:
        combination(torch.eye(2), torch.ones(2), method=method)
    except MissingExtraError as error:
        print(method, error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "cagrad cvxpy is needed here and is not installed: pip install 'prosocial[cagrad]'\n"
