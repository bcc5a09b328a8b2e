"""When attributes pull apart: their gradients aggregated through torchjd, on the adapter's parameters only."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import MissingExtraError, UnknownNameError

CONFLICT_METHODS = ("none", "pcgrad", "mgda")


def conflict_step(
    losses: Tensor,
    weights: Tensor,
    parameters: Sequence[nn.Parameter],
    *,
    method: str,
    anchor: Tensor | None = None,
) -> None:
    """Fill `.grad` of the parameters from the k losses.

    `none` is the weighted sum. `pcgrad` projects the weighted gradients of the attributes that carry weight off one
    another where they conflict (Yu et al., arXiv 2001.06782), so that at a corner e_i the step is the gradient of loss
    i alone. `mgda` takes the min-norm point of the unweighted gradients (Desideri 2012), whatever the weights.

    Args:
        losses: [k] one loss per attribute, attached to the graph.
        weights: [k] the preference that the batch was drawn under.
        parameters: the adapter's parameters.
        method: one of CONFLICT_METHODS.
        anchor: a scalar loss that belongs to no attribute; its gradient is added as it is.
    """
    if method not in CONFLICT_METHODS:
        raise UnknownNameError("conflict method", method, CONFLICT_METHODS)
    if method == "none":
        total = (losses * weights).sum() + (0.0 if anchor is None else anchor)
        total.backward()
        return
    backward, jac_to_grad, aggregator = _torchjd(method)
    carried = [index for index in range(len(weights)) if weights[index] > 0]
    rows = [losses[index] if method == "mgda" else losses[index] * weights[index] for index in carried]
    backward(rows, inputs=list(parameters), parallel_chunk_size=1, retain_graph=anchor is not None)
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
