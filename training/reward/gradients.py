"""Gradients of k losses and an anchor on the adapter's parameters, micro-batch by micro-batch.

Losses and anchor are functions of the rewards of a micro-batch's replies. They are shares of the whole batch's: those
of its parts add up.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .pblora.row_jacobian import RowJacobian
from .processes import add_up


@dataclass(frozen=True)
class Part:
    """One micro-batch.

    Attributes:
        rewards: [B] of its replies, a row of the model's batch each.
        terms: from these rewards to the losses [k] and the anchor (a scalar, or None).
    """

    rewards: Tensor
    terms: Callable[[Tensor], tuple[Tensor, Tensor | None]]


def weighted_gradients(
    parts: Iterable[Part], parameters: Sequence[nn.Parameter], weigh: Callable[[Tensor], Tensor]
) -> None:
    """Add the gradient of `weigh(losses) @ losses + anchor` to the parameters' `.grad`."""
    for part in parts:
        losses, anchor = part.terms(part.rewards)
        total = weigh(losses.detach()) @ losses + (0.0 if anchor is None else anchor)
        total.backward()  # type: ignore[no-untyped-call]
    add_up(_gradients(parameters))


def combined_gradients(
    parts: Iterable[Part],
    parameters: Sequence[nn.Parameter],
    carried: Tensor,
    combine: Callable[[Tensor], Tensor],
    *,
    jacobian: RowJacobian,
) -> Tensor:
    """Add `combine(G) @ J` and the anchor's gradient to the parameters' `.grad`: one backward pass a part, too.

    Args:
        parts: the micro-batches, from passes that told their rows apart.
        parameters: what J [k, n] is taken over.
        carried: [k] True for the losses that take part; the others' gradients count as zero.
        combine: from the Gramian G = J J^T [k, k] to the weights [k].
        jacobian: takes the rows' gradients.

    Returns:
        G.
    """
    n_losses = int(carried.sum())
    for part in parts:
        jacobian.backward(part.rewards, _derivatives(part, carried))
    found = [
        jacobian.rows.get(parameter, torch.zeros(n_losses + 1, *parameter.shape).to(parameter))
        for parameter in parameters
    ]
    add_up(found)
    gramian = torch.zeros(len(carried), len(carried), dtype=torch.float64)
    at = carried.nonzero()[:, 0]
    gramian[at[:, None], at] = _gramian([rows[:n_losses] for rows in found])
    weights = torch.cat([combine(gramian).double()[at], torch.ones(1).double()])  # the anchor's row is the last
    for parameter, rows in zip(parameters, found, strict=True):
        step = torch.einsum("i,i...->...", weights.to(rows), rows)
        parameter.grad = step if parameter.grad is None else parameter.grad + step
    return gramian


def _derivatives(part: Part, carried: Tensor) -> Tensor:
    """Return [n + 1, B]: of the n losses that take part by the rewards, and of the anchor."""
    rewards = part.rewards.detach().requires_grad_()
    losses, anchor = part.terms(rewards)
    rows = [torch.autograd.grad(loss, rewards, retain_graph=True)[0] for loss in losses[carried]]
    rows += [torch.zeros_like(rewards) if anchor is None else torch.autograd.grad(anchor, rewards)[0]]
    return torch.stack(rows)


def _gradients(parameters: Sequence[nn.Parameter]) -> Iterator[Tensor]:
    return (parameter.grad for parameter in parameters if parameter.grad is not None)


def _gramian(jacobians: Sequence[Tensor]) -> Tensor:
    flat = [jacobian.flatten(1).double().cpu() for jacobian in jacobians]
    return torch.stack([rows @ rows.T for rows in flat]).sum(0)
