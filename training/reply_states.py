"""The hidden states that a reply's tokens are predicted from."""

from torch import Tensor

from prosocial.core.batches import ReplyBatch
from prosocial.steering.backbone import Backbone


def reply_hidden(backbone: Backbone, batch: ReplyBatch) -> Tensor:
    """Return [M, H], float32: the last hidden state at each of the M positions whose next token belongs to a reply.

    Rows come one after the other. `backbone.logits` of them are the logits at these positions alone, so that the
    logits [B, S, V] of whole prompts are never computed.
    """
    device = backbone.output_weight.device
    hidden = backbone.hidden(batch.input_ids.to(device), attention_mask=batch.attention_mask.to(device))
    return hidden[batch.predicts_reply.to(device)]
