"""Log-probabilities of reply tokens, without the logits of a whole batch.

Logits are computed for a part of the vocabulary at a time, from the hidden states at the replies' positions alone, with
a running log-sum-exp. Where the output embedding is trained, the backward pass computes the logits again (Cut
Cross-Entropy, Wijmans et al., arXiv 2411.09009). Where it is frozen, the forward pass finds the gradient too: that of
the log-sum-exp is attention over the rows of the embedding, with a running softmax (Milakov and Gimelshein, arXiv
1805.02867).
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from prosocial.core.batches import ReplyBatch
from prosocial.steering.backbone import Backbone

MOST_POSITIONS = 2048  # at once
MOST_LOGITS = 2**22  # at once: 16 MiB in float32


def reply_log_probability(backbone: Backbone, batch: ReplyBatch) -> Tensor:
    """Return each reply's summed log-probability [B]: sum_t log pi(y_t | x, y_<t), with gradients to trained weights.

    An output embedding with an adapter is called as a module, for all rows and a few positions at a time.

    Args:
        backbone: the language model.
        batch: conversations with one reply each.
    """
    device = backbone.device
    hidden = backbone.hidden(batch.input_ids.to(device), attention_mask=batch.attention_mask.to(device)).to(device)
    next_ids, at = batch.next_ids.to(device), batch.predicts_reply.to(device)
    if isinstance(backbone.model.get_output_embeddings(), nn.Linear):  # type: ignore[no-untyped-call]
        by_token = token_log_probability(backbone, hidden[at], next_ids[at])
        return hidden.new_zeros(len(at)).index_add(0, at.nonzero()[:, 0], by_token)
    columns = at.any(0).nonzero()[:, 0]
    step = max(1, MOST_LOGITS // (len(at) * len(backbone.output_weight)))
    parts = [
        checkpoint(_of_columns, backbone, hidden[:, some], next_ids[:, some], at[:, some], use_reentrant=False)
        for some in torch.split(columns, step)
    ]
    total: Tensor = torch.stack(parts).sum(0)
    return total


def token_log_probability(backbone: Backbone, hidden: Tensor, next_ids: Tensor) -> Tensor:
    """Return the log-probability [M] of one token after each of M hidden states, with soft-cap and logit scale.

    Args:
        backbone: the language model; its output embedding must be a linear layer without an adapter.
        hidden: [M, H], last hidden states.
        next_ids: [M], ids of the tokens.
    """
    embedding: Any = backbone.model.get_output_embeddings()  # type: ignore[no-untyped-call]
    weight, shape = embedding.weight, (backbone.logit_scale, backbone.soft_cap)
    return linear_log_probability(hidden.to(weight.dtype), weight, embedding.bias, next_ids, *shape)


def linear_log_probability(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, next_ids: Tensor, scale: float = 1.0, soft_cap: float = 0.0
) -> Tensor:
    """Return log softmax(logits)[next_ids] [M], in float32 or wider, with logits from an output embedding.

    Args:
        hidden: [M, H], last hidden states, in the dtype of the weight.
        weight: [V, H], the output embedding's weight.
        bias: [V], or None.
        next_ids: [M], ids of the tokens.
        scale: factor of the logits.
        soft_cap: largest logit, approached by a tanh; 0 for none.

    Examples:
        >>> linear_log_probability(torch.zeros(1, 2), torch.ones(4, 2), None, torch.tensor([3]))
        tensor([-1.3863])
    """
    is_frozen = not (weight.requires_grad or (bias is not None and bias.requires_grad))
    wants_gradient = torch.is_grad_enabled() and hidden.requires_grad
    function: Any = _WithFrozenEmbedding if is_frozen and wants_gradient else _WithTrainedEmbedding
    result: Tensor = function.apply(hidden, weight, bias, next_ids, scale, soft_cap)
    return result


class _WithFrozenEmbedding(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        next_ids: Tensor,
        scale: float,
        soft_cap: float,
    ) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        chosen, total = hidden.new_zeros(2, len(hidden), dtype=wide)
        top = hidden.new_full((len(hidden),), -torch.inf, dtype=wide)
        mean = torch.zeros_like(hidden, dtype=wide)  # of the embedding's rows, not yet divided by `total`
        for rows, part in _blocks(len(hidden), len(weight)):
            logits = _logits(hidden, weight, bias, scale, soft_cap, rows, part)
            own, at = _own(next_ids, rows, part)
            chosen[own] = logits[own - rows.start, at]
            higher = torch.maximum(top[rows], logits.amax(-1))
            shrink = (top[rows] - higher).exp()
            weights = (logits - higher[:, None]).exp_()
            top[rows], total[rows] = higher, total[rows] * shrink + weights.sum(-1)
            if soft_cap:
                weights *= _slope(logits, soft_cap)
            mean[rows] = mean[rows] * shrink[:, None] + weights.to(weight.dtype) @ weight[part]
        slope = _slope(chosen, soft_cap) if soft_cap else torch.ones_like(chosen)
        context.save_for_backward(scale * (slope[:, None] * weight[next_ids] - mean / total[:, None]))
        result: Tensor = chosen - top - total.log()
        return result

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = context.saved_tensors
        return gradient[:, None] * slope, None, None, None, None, None


class _WithTrainedEmbedding(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        next_ids: Tensor,
        scale: float,
        soft_cap: float,
    ) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        chosen = hidden.new_zeros(len(hidden), dtype=wide)
        log_sum = hidden.new_full((len(hidden),), -torch.inf, dtype=wide)
        for rows, part in _blocks(len(hidden), len(weight)):
            logits = _logits(hidden, weight, bias, scale, soft_cap, rows, part)
            own, at = _own(next_ids, rows, part)
            chosen[own] = logits[own - rows.start, at]
            log_sum[rows] = torch.logaddexp(log_sum[rows], logits.logsumexp(-1))
        context.save_for_backward(hidden, weight, bias, next_ids, log_sum)
        context.shape = scale, soft_cap
        return chosen - log_sum

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, next_ids, log_sum = context.saved_tensors
        scale, soft_cap = context.shape
        needed = context.needs_input_grad
        to_hidden = torch.zeros_like(hidden, dtype=gradient.dtype) if needed[0] else None
        to_weight = torch.zeros_like(weight) if needed[1] else None
        to_bias = torch.zeros_like(bias) if needed[2] else None
        for rows, part in _blocks(len(hidden), len(weight)):
            logits = _logits(hidden, weight, bias, scale, soft_cap, rows, part)
            own, at = _own(next_ids, rows, part)
            step = (logits - log_sum[rows, None]).exp_().mul_(-scale * gradient[rows, None])  # [m, v]
            step[own - rows.start, at] += scale * gradient[own]
            step = (step * _slope(logits, soft_cap) if soft_cap else step).to(weight.dtype)
            if to_hidden is not None:
                to_hidden[rows] += step @ weight[part]
            if to_weight is not None:
                to_weight[part] += step.T @ hidden[rows]
            if to_bias is not None:
                to_bias[part] += step.sum(0)
        return to_hidden, to_weight, to_bias, None, None, None


def _blocks(n_positions: int, n_tokens: int) -> Iterator[tuple[slice, slice]]:
    """Yield blocks of positions and tokens of the vocabulary that cover all [n_positions, n_tokens] logits once."""
    for start in range(0, n_positions, MOST_POSITIONS):
        rows = slice(start, min(start + MOST_POSITIONS, n_positions))
        width = max(1, MOST_LOGITS // (rows.stop - rows.start))
        yield from ((rows, slice(first, min(first + width, n_tokens))) for first in range(0, n_tokens, width))


def _logits(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, scale: float, soft_cap: float, rows: slice, part: slice
) -> Tensor:
    """Return one block of the logits [m, v], in float32 or wider."""
    logits = functional.linear(hidden[rows], weight[part], None if bias is None else bias[part])
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if scale != 1.0:
        logits = logits * scale
    return soft_cap * torch.tanh(logits / soft_cap) if soft_cap else logits


def _slope(logits: Tensor, soft_cap: float) -> Tensor:
    """Return the derivative of capped logits with respect to the logits before the soft-cap."""
    return 1 - (logits / soft_cap).square()


def _own(next_ids: Tensor, rows: slice, part: slice) -> tuple[Tensor, Tensor]:
    """Return the positions in `rows` whose next token is in `part`, and where in `part` it is."""
    at = next_ids[rows] - part.start
    own = ((at >= 0) & (at < part.stop - part.start)).nonzero()[:, 0]
    return own + rows.start, at[own]


def _of_columns(backbone: Backbone, hidden: Tensor, next_ids: Tensor, at: Tensor) -> Tensor:
    """Return the summed log-probability [B] of the tokens at some columns [B, c]."""
    chosen = backbone.logits(hidden).log_softmax(-1).gather(-1, next_ids[..., None])[..., 0]
    return (chosen * at).sum(-1)
