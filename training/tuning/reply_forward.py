"""A model's forward pass for the log-probabilities of replies, so that peft, DDP and FSDP can wrap it."""

import functools
import types
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from prosocial.steering.backbone import Backbone

from ..reply_log_probability import linear_log_probability


def add_reply_forward(model: PreTrainedModel) -> None:
    """Let `model(..., next_ids=, predicts_reply=)` return each reply's summed log-probability [B] in float32.

    Logits are computed at the replies' positions alone, for a part of the vocabulary at a time. Without
    `predicts_reply` the forward pass is the model's own.

    Args:
        model: a causal language model, not yet wrapped; it then takes two more arguments, those of a `ReplyBatch`.

    Raises:
        InputError: see `Backbone`.
    """
    backbone, own = Backbone(model), model.forward
    scale, soft_cap = backbone.logit_scale, backbone.soft_cap

    @functools.wraps(type(model).forward)
    def forward(
        self: Any, *args: Any, next_ids: Tensor | None = None, predicts_reply: Tensor | None = None, **rest: Any
    ) -> Any:
        if next_ids is None or predicts_reply is None:
            return own(*args, **rest)
        hidden = self.base_model(*args, **rest, use_cache=False).last_hidden_state
        head, at = self.get_output_embeddings(), predicts_reply.to(hidden.device)
        weight, bias = _whole(head.weight), _whole(head.bias)
        states = hidden[at].to(weight.device, weight.dtype)
        each = linear_log_probability(states, weight, bias, next_ids[predicts_reply].to(weight.device), scale, soft_cap)
        return each.new_zeros(len(at)).index_add(0, at.nonzero()[:, 0].to(each.device), each)

    model.forward = types.MethodType(forward, model)


def _whole(weight: Tensor | None) -> Any:
    """Return a weight that FSDP has spread over processes as one tensor."""
    return weight.full_tensor() if isinstance(weight, DTensor) else weight
