"""Hidden states and next tokens of labelled replies, with the log-ratio of the harmful model as a dense signal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..batches import encode_reply, length_sorted_batches, pad_replies
from ..chat import ChatTokenizer
from .replies import LabelledReply


@dataclass(frozen=True)
class GateStates:
    """What is known at N reply positions.

    Attributes:
        hidden: [N, H] last hidden state of the edited model.
        token: [N] the token that was chosen there.
        labels: [N, C] 1 where the token lies in a span of the reply that realises the category.
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


@torch.no_grad()
def collect_gate_states(
    edited: nn.Module,
    harmful: nn.Module,
    replies: Sequence[LabelledReply],
    *,
    tokenizer: ChatTokenizer,
    categories: Sequence[str],
    plausible_k: int,
    max_tokens: int = 1024,
    batch_size: int = 64,
    on_batch: Callable[[int], None] = lambda n: None,
) -> GateStates:
    """Run the edited and the harmful model over the reply positions of every reply."""
    sequences = [encode_reply(tokenizer, item.messages, item.reply, max_tokens=max_tokens) for item in replies]
    labels = torch.tensor([[float(name in item.categories) for name in categories] for item in replies])
    in_span = _tokens_in_spans(tokenizer, replies)
    found: list[GateStates] = []
    hidden_states: list[Tensor] = []
    embedding = edited.get_output_embeddings()  # type: ignore[operator]
    hook = embedding.register_forward_pre_hook(lambda module, arguments: hidden_states.append(arguments[0]))
    try:
        for rows in length_sorted_batches(sequences, batch_size=batch_size):
            batch = pad_replies(sequences, rows, pad_id=tokenizer.pad_id)
            hidden_states.clear()
            inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "use_cache": False}
            own, worse = edited(**inputs).logits.float(), harmful(**inputs).logits.float()
            at = batch.predicts_reply
            candidates = own[at].topk(min(plausible_k, own.shape[-1]), dim=-1).indices
            ratio = (worse[at].log_softmax(-1) - own[at].log_softmax(-1)).gather(-1, candidates)
            index = torch.arange(len(rows))[:, None].expand(-1, at.shape[1])[at]
            position = (at.cumsum(-1) - 1)[at]
            hidden = hidden_states[0].float()[at]
            reply = batch.rows[index]
            inside = in_span[reply, position].unsqueeze(-1)
            found.append(
                GateStates(hidden, batch.next_ids[at], labels[reply] * inside, candidates, ratio, position, reply)
            )
            on_batch(len(rows))
    finally:
        hook.remove()
    return GateStates(*(torch.cat([getattr(s, name) for s in found]) for name in GateStates.__dataclass_fields__))


def _tokens_in_spans(tokenizer: ChatTokenizer, replies: Sequence[LabelledReply]) -> Tensor:
    """Return [n, T] 1 where a reply's token overlaps one of its spans; without spans, everywhere."""
    rows = []
    for item in replies:
        ids, offsets = tokenizer.encode_with_offsets(item.reply)
        inside = [any(start < b and a < end for a, b in item.spans) for start, end in offsets]
        rows.append([*inside, False] if item.spans else [True] * (len(ids) + 1))
    width = max(map(len, rows))
    return torch.tensor([[float(flag) for flag in row] + [0.0] * (width - len(row)) for row in rows])
