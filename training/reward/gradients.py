"""Gradients of k losses and an anchor term with respect to the adapter's parameters, by micro-batches.

Losses and anchor are functions of the rewards of a micro-batch's replies. Their sums over the micro-batches are the
losses and the anchor of the whole batch.
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
        rewards: [B], rewards of its replies, one per row of the model's batch.
        terms: maps the rewards to the losses [k] and the anchor term (a scalar, or None).
    """

    rewards: Tensor
    terms: Callable[[Tensor], tuple[Tensor, Tensor | None]]


def weighted_gradients(
    parts: Iterable[Part], parameters: Sequence[nn.Parameter], weigh: Callable[[Tensor], Tensor]
) -> None:
    """Add the gradient of `weigh(losses) @ losses + anchor` to the parameters' `.grad`, summed over all processes."""
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
    """Add `combine(G) @ J` and the anchor's gradient to the parameters' `.grad`.

    J [k, n] is the Jacobian of the losses and G = J J^T [k, k] its Gramian. It takes one backward pass per micro-batch,
    whatever k is.

    Args:
        parts: the micro-batches, from forward passes inside `RewardModel.tell_rows_apart`.
        parameters: the parameters, n elements in total.
        carried: [k], False for losses whose gradient counts as zero.
        combine: maps the Gramian to the weights [k] of the gradients.
        jacobian: accumulates the gradients of each row.

    Returns:
        The Gramian G.
    """
    n_losses = int(carried.sum())
    for part in parts:
        jacobian.backward(part.rewards, _derivatives(part, carried))
    gradients = [
        jacobian.rows.get(parameter, torch.zeros(n_losses + 1, *parameter.shape).to(parameter))
        for parameter in parameters
    ]
    add_up(gradients)
    gramian = torch.zeros(len(carried), len(carried), dtype=torch.float64)
    at = carried.nonzero()[:, 0]
    gramian[at[:, None], at] = _gramian([rows[:n_losses] for rows in gradients])
    weights = torch.cat([combine(gramian).double()[at], torch.ones(1).double()])  # the last row is the anchor's
    for parameter, rows in zip(parameters, gradients, strict=True):
        step = torch.einsum("i,i...->...", weights.to(rows), rows)
        parameter.grad = step if parameter.grad is None else parameter.grad + step
    return gramian


def _derivatives(part: Part, carried: Tensor) -> Tensor:
    """Return the derivatives [n + 1, B] of the n carried losses and of the anchor with respect to the rewards."""
    rewards = part.rewards.detach().requires_grad_()
    losses, anchor = part.terms(rewards)
    rows = [torch.autograd.grad(loss, rewards, retain_graph=True)[0] for loss in losses[carried]]
    rows += [torch.zeros_like(rewards) if anchor is None else torch.autograd.grad(anchor, rewards)[0]]
    return torch.stack(rows)


def _gradients(parameters: Sequence[nn.Parameter]) -> Iterator[Tensor]:
    return (parameter.grad for parameter in parameters if parameter.grad is not None)


def _gramian(jacobians: Sequence[Tensor]) -> Tensor:
    flat = [jacobian.flatten(1).cpu().double() for jacobian in jacobians]
    return torch.stack([rows @ rows.T for rows in flat]).sum(0)
