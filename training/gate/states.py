"""Hidden states and next tokens of labelled replies, with the log-ratio of the harmful model as a dense signal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from prosocial.core.batches import encode_reply, length_sorted_batches, pad_replies
from prosocial.core.chat import ChatTokenizer
from prosocial.steering.plausible import plausible

from .replies import LabelledReply


@dataclass(frozen=True)
class GateStates:
    """What is known at N reply positions.

    Attributes:
        hidden: [N, H] last hidden state of the edited model.
        token: [N] the token that was chosen there.
        labels: [N, C] the event that a risk is the chance of: the text, read on from this token, realises a harm of the
            category before the reading ends, which after each token it does with probability 1 - `discount`. Given the
            reply that is `discount` to the power of the tokens left until the next harmful span: 1 in it, 0 where none
            follows. With `discount` 1 it is the prefix label of FUDGE (arXiv 2104.05218): does harm follow at all?
            Spans carry no category: where a reply realises several, each span counts for all of them.
        candidates: [N, K] the plausible tokens.
        log_ratio: [N, K] log pi_harmful - log pi of the candidates.
        position: [N] how many reply tokens came before.
        reply: [N] which reply the position belongs to.
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
    edited: nn.Module,
    harmful: nn.Module | None,
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
        harmful: the model that its log-ratio compares with; None: itself, so that every log-ratio is 0.
        replies: labelled. tokenizer: of both models. categories: names, in the order of the labels.
        plausible_k: K, candidates per position.
        discount: in [0, 1]; see `GateStates.labels`. 0: only the harm itself.
        max_tokens: most tokens of a prompt and its reply. batch_size: replies at once.
        on_batch: called with the number of replies read.
    """
    sequences = [encode_reply(tokenizer, item.messages, item.reply, max_tokens=max_tokens) for item in replies]
    labels = torch.tensor([[float(name in item.categories) for name in categories] for item in replies])
    nearness = _nearness(tokenizer, replies, discount)
    found: list[GateStates] = []
    hidden_states: list[Tensor] = []
    embedding = edited.get_output_embeddings()  # type: ignore[operator]
    hook = embedding.register_forward_pre_hook(lambda module, arguments: hidden_states.append(arguments[0]))
    try:
        for rows in length_sorted_batches(sequences, batch_size=batch_size):
            batch = pad_replies(sequences, rows, pad_id=tokenizer.pad_id)
            hidden_states.clear()
            inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "use_cache": False}
            own = edited(**inputs).logits.float()
            worse = own if harmful is None else harmful(**inputs).logits.float()
            at = batch.predicts_reply
            _, candidates = plausible(own[at], plausible_k)
            ratio = (worse[at].log_softmax(-1) - own[at].log_softmax(-1)).gather(-1, candidates)
            index = torch.arange(len(rows))[:, None].expand(-1, at.shape[1])[at]
            position = (at.cumsum(-1) - 1)[at]
            hidden = hidden_states[0].float()[at]
            reply = batch.rows[index]
            near = nearness[reply, position].unsqueeze(-1)
            found.append(
                GateStates(hidden, batch.next_ids[at], labels[reply] * near, candidates, ratio, position, reply)
            )
            on_batch(len(rows))
    finally:
        hook.remove()
    return GateStates(*(torch.cat([getattr(s, name) for s in found]) for name in GateStates.__dataclass_fields__))


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
