"""Gradients of k losses and an anchor on the adapter's parameters, micro-batch by micro-batch.

A part is one micro-batch's share of the losses [k] and of the anchor (a scalar, or None): the parts of a batch add up.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from ..errors import MissingExtraError
from .processes import add_up

Part = tuple[Tensor, Tensor | None]


def weighted_gradients(
    parts: Iterable[Part], parameters: Sequence[nn.Parameter], weigh: Callable[[Tensor], Tensor]
) -> None:
    """Add the gradient of `weigh(losses) @ losses + anchor` to the parameters' `.grad`: one backward pass a part."""
    for losses, anchor in parts:
        total = weigh(losses.detach()) @ losses + (0.0 if anchor is None else anchor)
        total.backward()  # type: ignore[no-untyped-call]
    add_up(_gradients(parameters))


def combined_gradients(
    parts: Iterable[Part], parameters: Sequence[nn.Parameter], carried: Tensor, combine: Callable[[Tensor], Tensor]
) -> Tensor:
    """Add `combine(G) @ J` and the anchor's gradient to the parameters' `.grad`: a backward pass a loss and part.

    Losses are differentiated one after another, which takes no more memory than one of them and goes together with
    gradient checkpointing.

    Args:
        parts: the micro-batches.
        parameters: what J [k, n] is taken over.
        carried: [k] True for the losses that take part; the others' gradients count as zero.
        combine: from the Gramian G = J J^T [k, k] to the weights [k].

    Returns:
        G.
    """
    try:
        from torchjd.aggregation import Constant
        from torchjd.autojac import backward, jac_to_grad
    except ImportError:
        raise MissingExtraError("torchjd", "train") from None
    for losses, anchor in parts:
        rows = [loss for loss, takes_part in zip(losses, carried, strict=True) if takes_part]
        if rows:
            backward(rows, inputs=list(parameters), parallel_chunk_size=1, retain_graph=anchor is not None)
        if anchor is not None:
            anchor.backward()  # type: ignore[no-untyped-call]
    add_up(_gradients(parameters))
    gramian = torch.zeros(len(carried), len(carried), dtype=torch.float64, device=carried.device)
    if carried.any():
        at = carried.nonzero()[:, 0]
        add_up(parameter.jac for parameter in parameters)  # type: ignore[attr-defined]
        gramian[at[:, None], at] = _gramian(parameters).to(gramian.device)
        jac_to_grad(list(parameters), Constant(combine(gramian)[carried].to(parameters[0])))
    return gramian


def _gradients(parameters: Sequence[nn.Parameter]) -> Iterator[Tensor]:
    return (parameter.grad for parameter in parameters if parameter.grad is not None)


def _gramian(parameters: Sequence[nn.Parameter]) -> Tensor:
    jacobians = [parameter.jac.flatten(1).double() for parameter in parameters]  # type: ignore[attr-defined]
    return torch.stack([jacobian @ jacobian.T for jacobian in jacobians]).sum(0)
