"""When attributes pull apart: their gradients aggregated through torchjd, on the adapter's parameters only."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import MissingExtraError, UnknownNameError

CONFLICT_METHODS = ("none", "pcgrad", "mgda")


def conflict_step(
    losses: Tensor,
    parameters: Sequence[nn.Parameter],
    *,
    method: str,
    anchor: Tensor | None = None,
) -> None:
    """Fill `.grad` of the parameters from the k losses.

    `none` is their sum. `pcgrad` projects the gradients off one another where they conflict (Yu et al., arXiv
    2001.06782); a loss that is zero, as every other one is at a corner e_i, takes no part, so the step there is the
    gradient of loss i alone. `mgda` takes the min-norm point (Desideri 2012).

    Args:
        losses: [k] one loss per attribute, weighted by the preferences, attached to the graph.
        parameters: the adapter's parameters.
        method: one of CONFLICT_METHODS.
        anchor: a scalar loss that belongs to no attribute; its gradient is added as it is.
    """
    if method not in CONFLICT_METHODS:
        raise UnknownNameError("conflict method", method, CONFLICT_METHODS)
    if method == "none":
        total = losses.sum() + (0.0 if anchor is None else anchor)
        total.backward()  # type: ignore[no-untyped-call]
        return
    backward, jac_to_grad, aggregator = _torchjd(method)
    carried = [loss for loss in losses if float(loss.detach()) > 0]
    backward(carried, inputs=list(parameters), parallel_chunk_size=1, retain_graph=anchor is not None)
    jac_to_grad(list(parameters), aggregator())
    if anchor is not None:
        anchor.backward()  # type: ignore[no-untyped-call]


def conflicting_share(gradients: Tensor) -> float:
    """Return the share of pairs of rows of [k, n] gradients whose inner product is negative."""
    gram = gradients @ gradients.T
    upper = torch.triu_indices(len(gram), len(gram), offset=1)
    return float((gram[upper[0], upper[1]] < 0).float().mean()) if upper.shape[1] else 0.0


def _torchjd(method: str) -> tuple[Callable[..., Any], Callable[..., Any], Callable[[], Any]]:
    try:
        from torchjd.aggregation import MGDA, PCGrad
        from torchjd.autojac import backward, jac_to_grad
    except ImportError:
        raise MissingExtraError("torchjd", "train") from None
    return backward, jac_to_grad, {"pcgrad": PCGrad, "mgda": MGDA}[method]
