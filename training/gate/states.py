"""Hidden states and next tokens of labelled replies, with the log-ratio of the harmful model as a dense signal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prosocial.core.batches import encode_reply, length_sorted_batches, pad_replies
from prosocial.core.chat import ChatTokenizer
from prosocial.steering.backbone import Backbone
from prosocial.steering.plausible import plausible

from ..reply_states import reply_hidden
from .replies import LabelledReply


@dataclass(frozen=True)
class GateStates:
    """Hidden states, tokens and labels at N reply positions.

    Attributes:
        hidden: [N, H] last hidden state of the edited model.
        token: [N] the reply's next token.
        labels: [N, C] the target of each category's risk: `discount ** n`, where n is the number of tokens from this
            one to the next harmful span of the reply (0 inside a span), and 0 where no span follows. This is the
            probability that reading reaches the harm, if after each token it stops with probability `1 - discount`.
            With discount 0 only harmful tokens are labelled; with discount 1 the label says whether harm follows at
            all, as in FUDGE (arXiv 2104.05218). Spans have no category: in a reply of several categories, every span
            counts for each of them.
        candidates: [N, K] the plausible tokens.
        log_ratio: [N, K] log pi_harmful - log pi of the candidates.
        position: [N] how many reply tokens came before.
        reply: [N] index of the reply that the position belongs to.
    """

    hidden: Tensor
    token: Tensor
    labels: Tensor
    candidates: Tensor
    log_ratio: Tensor
    position: Tensor
    reply: Tensor

    def __len__(self) -> int:
        return len(self.hidden)

    def rows(self, chosen: Tensor) -> "GateStates":
        """Return the states at some positions."""
        return GateStates(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    def joined(self, other: "GateStates") -> "GateStates":
        """Return these states and then the other's, whose replies are numbered on."""
        renumbered = replace(other, reply=other.reply + int(self.reply.max()) + 1)
        fields = self.__dataclass_fields__
        return GateStates(*(torch.cat([getattr(self, name), getattr(renumbered, name)]) for name in fields))


@torch.no_grad()
def collect_gate_states(
    edited: PreTrainedModel,
    harmful: PreTrainedModel | None,
    replies: Sequence[LabelledReply],
    *,
    tokenizer: ChatTokenizer,
    categories: Sequence[str],
    plausible_k: int,
    discount: float = 0.0,
    max_tokens: int = 1024,
    batch_size: int = 64,
    on_batch: Callable[[int], None] = lambda n: None,
) -> GateStates:
    """Run the edited and the harmful model over the reply positions of every reply.

    Args:
        edited: the model whose states the gate will read.
        harmful: a harmful model of the same vocabulary, for the log-ratio; None: every log-ratio is 0.
        replies: labelled. tokenizer: of both models. categories: names, in the order of the labels.
        plausible_k: K, candidates per position.
        discount: in [0, 1], see `GateStates.labels`; 0 labels only the harm itself.
        max_tokens: most tokens of a prompt and its reply. batch_size: replies at once.
        on_batch: called with the number of replies read.
    """
    sequences = [encode_reply(tokenizer, item.messages, item.reply, max_tokens=max_tokens) for item in replies]
    labels = torch.tensor([[float(name in item.categories) for name in categories] for item in replies])
    nearness = _nearness(tokenizer, replies, discount)
    own, other = Backbone(edited), None if harmful is None else Backbone(harmful)
    parts: list[GateStates] = []
    for rows in length_sorted_batches(sequences, batch_size=batch_size):
        batch = pad_replies(sequences, rows, pad_id=tokenizer.pad_id)
        at = batch.predicts_reply
        hidden = reply_hidden(own, batch)
        logits = own.logits(hidden)  # [M, V]
        worse = logits if other is None else other.logits(reply_hidden(other, batch))
        _, candidates = plausible(logits, plausible_k)
        ratio = (worse.log_softmax(-1) - logits.log_softmax(-1)).gather(-1, candidates)
        reply = batch.rows[torch.arange(len(rows))[:, None].expand(-1, at.shape[1])[at]]
        position = (at.cumsum(-1) - 1)[at]
        near = nearness[reply, position].unsqueeze(-1)
        parts.append(GateStates(hidden, batch.next_ids[at], labels[reply] * near, candidates, ratio, position, reply))
        on_batch(len(rows))
    return GateStates(*(torch.cat([getattr(s, name) for s in parts]) for name in GateStates.__dataclass_fields__))


def _nearness(tokenizer: ChatTokenizer, replies: Sequence[LabelledReply], discount: float) -> Tensor:
    """Return [n, T]: 1 where a token overlaps a span, `discount` times the next token's elsewhere; 1 without spans."""
    rows = []
    for item in replies:
        ids, offsets = tokenizer.encode_with_offsets(item.reply)
        if not item.spans:
            rows.append([1.0] * (len(ids) + 1))
            continue
        row = [0.0] * (len(ids) + 1)  # the end token lies in no span
        for at, (start, end) in reversed(list(enumerate(offsets))):
            row[at] = 1.0 if any(start < b and a < end for a, b in item.spans) else discount * row[at + 1]
        rows.append(row)
    width = max(map(len, rows))
    return torch.tensor([row + [0.0] * (width - len(row)) for row in rows])
