"""Hidden states and next tokens of labelled replies, with the log-ratio of the harmful model as a dense signal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prosocial.core.batches import ReplyBatch, encode_reply
from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import InputError
from prosocial.steering.backbone import Backbone

from ..reply_states import (
    ReplyPositions,
    candidates_at,
    log_probability_of,
    parameter_digest,
    read_positions,
    reply_hidden,
    tensor_digest,
)
from ..state_files import BLOCK_ROWS, StateFiles
from .replies import LabelledReply

Model = PreTrainedModel | Callable[[], PreTrainedModel]  # a model, or a function that opens it


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

    @property
    def row_bytes(self) -> int:
        """Bytes of one position."""
        return sum(getattr(self, name)[:1].nbytes for name in FIELDS)

    def rows(self, chosen: Tensor) -> "GateStates":
        """Return the states at some positions, with hidden states in float32."""
        taken = GateStates(*(getattr(self, name)[chosen] for name in FIELDS))
        return replace(taken, hidden=taken.hidden.float(), candidates=taken.candidates.long())

    def appended(self, more: "GateStates", chosen: Tensor, files: StateFiles) -> "GateStates":
        """Return these states and then some of others, whose replies are numbered on.

        Args:
            more: other states. chosen: [n], the positions to take from there. files: where these states are.
        """
        first = int(self.reply.max()) + 1
        for part in torch.split(chosen, BLOCK_ROWS):
            taken = more.rows(part)
            files.append({**vars(taken), "reply": taken.reply + first})
        return GateStates(**{name: files.columns[name] for name in FIELDS})


FIELDS = tuple(GateStates.__dataclass_fields__)


def harmful_at(states: GateStates) -> Tensor:
    """Return [N] bool: where the chosen token harms."""
    return states.labels.amax(-1) == 1.0


@torch.no_grad()
def collect_gate_states(
    edited: Model,
    harmful: Model | None,
    replies: Sequence[LabelledReply],
    *,
    tokenizer: ChatTokenizer,
    categories: Sequence[str],
    plausible_k: int,
    discount: float = 0.0,
    max_tokens: int = 1024,
    files: StateFiles | None = None,
    on_batch: Callable[[int], None] = lambda n: None,
) -> GateStates:
    """Run the edited model over the reply positions of every reply, and then the harmful one.

    Args:
        edited: the model whose states the gate will read, or a function that opens it.
        harmful: a harmful model of the same vocabulary, or a function that opens it, for the log-ratio; None: every
            log-ratio is 0. Of two models that are opened here only one is in memory at a time.
        replies: labelled. tokenizer: of both models. categories: names, in the order of the labels.
        plausible_k: K, candidates per position.
        discount: in [0, 1], see `GateStates.labels`; 0 labels only the harm itself.
        max_tokens: most tokens of a prompt and its reply.
        files: where the states are kept; default: in memory.
        on_batch: called with the number of replies read, by either model.

    Raises:
        InputError: the models' vocabularies differ, or one reply does not fit into memory.
        StorageError: the disk is full.
    """
    sequences = [encode_reply(tokenizer, item.messages, item.reply, max_tokens=max_tokens) for item in replies]
    reading = _Reading(
        ReplyPositions.of(sequences),
        labels=torch.tensor([[float(name in item.categories) for name in categories] for item in replies]),
        nearness=[_nearness(tokenizer, item, discount) for item in replies],
        files=StateFiles() if files is None else files,
        pad_id=tokenizer.pad_id,
        on_batch=on_batch,
    )
    vocabulary_size = reading.read_edited(opened(edited), plausible_k)
    if harmful is not None:
        reading.read_harmful(opened(harmful), vocabulary_size)
    return GateStates(**{name: reading.files.columns[name] for name in FIELDS})


def opened(model: Model) -> PreTrainedModel:
    """Return a model, which is opened if a function that opens it is given."""
    return model if isinstance(model, PreTrainedModel) else model()


@dataclass(frozen=True)
class _Reading:
    """Labelled replies that one or two models read."""

    positions: ReplyPositions
    labels: Tensor  # [n, C], of whole replies
    nearness: list[Tensor]  # [T] of each reply
    files: StateFiles
    pad_id: int
    on_batch: Callable[[int], None]

    def read_edited(self, model: PreTrainedModel, plausible_k: int) -> int:
        """Write all columns, with a log-ratio of 0, and return the size of the vocabulary."""
        own = Backbone(model)
        vocabulary_size, hidden_size = own.output_weight.shape
        k = min(plausible_k, vocabulary_size)
        n = len(self.positions)
        columns = self.files.open(
            {
                "hidden": ((n, hidden_size), own.output_weight.dtype),
                "token": ((n,), torch.long),
                "labels": ((n, self.labels.shape[1]), torch.float32),
                "candidates": ((n, k), torch.int32),
                "log_probability": ((n, k), torch.float32),
                "log_ratio": ((n, k), torch.float32),
                "position": ((n,), torch.long),
                "reply": ((n,), torch.long),
            },
            key=self.positions.digest(k, parameter_digest(model), tensor_digest([self.labels, *self.nearness])),
        )

        def read(batch: ReplyBatch, _: list[int]) -> None:
            at, rows = batch.predicts_reply, batch.rows.tolist()
            place = self.positions.place(rows)
            hidden = reply_hidden(own, batch)
            found = candidates_at(own, hidden, k)
            reply = batch.rows[:, None].expand(-1, at.shape[1])[at]
            lengths = at.sum(-1).tolist()
            near = torch.cat([self.nearness[row][:length] for row, length in zip(rows, lengths, strict=True)])
            written = {
                "hidden": hidden,
                "token": batch.next_ids[at],
                "labels": self.labels[reply] * near[:, None],
                "candidates": found.ids,
                "log_probability": found.log_probability,
                "log_ratio": torch.zeros(()),
                "position": (at.cumsum(-1) - 1)[at],
                "reply": reply,
            }
            for name, value in written.items():
                columns[name][place] = value.to(device="cpu", dtype=columns[name].dtype)

        self._read(read, own, "edited")
        return int(vocabulary_size)

    def read_harmful(self, model: PreTrainedModel, vocabulary_size: int) -> None:
        """Write the log-ratios."""
        other, columns = Backbone(model), self.files.columns
        require_one_vocabulary(vocabulary_size, len(other.output_weight))

        def read(batch: ReplyBatch, _: list[int]) -> None:
            place = self.positions.place(batch.rows.tolist())
            ids = columns["candidates"][place].long()
            worse = log_probability_of(other, reply_hidden(other, batch), ids).cpu()
            columns["log_ratio"][place] = worse - columns["log_probability"][place]

        self._read(read, other, parameter_digest(model))

    def _read(self, read: Callable[[ReplyBatch, list[int]], None], backbone: Backbone, reader: str) -> None:
        read_positions(
            read, self.positions, self.files, backbone, reader=reader, pad_id=self.pad_id, on_batch=self.on_batch
        )


def require_one_vocabulary(edited: int, harmful: int) -> None:
    """Raise InputError where the harmful model's vocabulary has another size than the edited one's."""
    if harmful != edited:
        raise InputError(
            f"the harmful model should have the vocabulary of the edited one, {edited} rows of the output embedding, "
            f"found {harmful}: give a harmful copy of the same base"
        )


def _nearness(tokenizer: ChatTokenizer, item: LabelledReply, discount: float) -> Tensor:
    """Return [T]: 1 where a token overlaps a span, `discount` times the next token's elsewhere; 1 without spans."""
    ids, offsets = tokenizer.encode_with_offsets(item.reply)
    row = [0.0 if item.spans else 1.0] * (len(ids) + 1)  # the end token lies in no span
    for at, (start, end) in reversed(list(enumerate(offsets if item.spans else []))):
        row[at] = 1.0 if any(start < b and a < end for a, b in item.spans) else discount * row[at + 1]
    return torch.tensor(row)
