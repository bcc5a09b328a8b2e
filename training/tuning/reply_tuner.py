"""The loss of supervised fine-tuning: the mean negative log-probability of reply tokens."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from prosocial.core.batches import EncodedReply

from .tuner import Tuner


class ReplyTuner(Tuner):
    """Trains a model to give replies.

    Args:
        model: the model.
        replies: conversations with a reply each, as token ids.
        settings: see `Tuner`.
    """

    def __init__(self, model: PreTrainedModel, replies: Sequence[EncodedReply], **settings: Any) -> None:
        self.replies = replies
        super().__init__(model, [item.length for item in replies], **settings)

    def n_terms(self, rows: Sequence[int]) -> int:
        """Return the number of reply tokens of some rows."""
        return sum(len(self.replies[row].reply_ids) for row in rows)

    def summed_loss(self, model: nn.Module, rows: Sequence[int]) -> Tensor:
        """Return the negative log-probability of the replies of some rows."""
        return -self.log_probabilities(model, [self.replies[row] for row in rows]).sum()
