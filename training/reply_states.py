"""What a language model computes at the positions that a reply's tokens are predicted from."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from blake3 import blake3
from torch import Tensor, nn

from prosocial.core.batches import (
    EncodedReply,
    ReplyBatch,
    halving,
    pad_replies,
    token_budget,
    token_budget_batches,
)
from prosocial.core.files import canonical_json
from prosocial.steering.backbone import Backbone
from prosocial.steering.plausible import plausible

from .state_files import StateFiles

FORMAT = "prosocial.states/1"
PART_REPLIES = 64  # written together
MOST_LOGITS = 1 << 24  # at once
GROUP = 64  # tokens whose largest logit is compared first
REMEDY = "lower max_tokens, choose dtype bfloat16, or a device with more memory"


class Candidates(NamedTuple):
    """The plausible tokens at M positions.

    Attributes:
        logits: [M, K], float32, in descending order.
        ids: [M, K], token ids.
        log_probability: [M, K], float32, among all tokens of the vocabulary.
    """

    logits: Tensor
    ids: Tensor
    log_probability: Tensor


@dataclass(frozen=True)
class ReplyPositions:
    """The order of the positions of replies in columns: short sequences first, each from its first reply token on.

    Attributes:
        sequences: prompts with replies.
        order: indices of the sequences, shortest first.
        start: by sequence, the row of its first position; at the end, the number of positions.
    """

    sequences: Sequence[EncodedReply]
    order: list[int]
    start: list[int]

    @classmethod
    def of(cls, sequences: Sequence[EncodedReply]) -> "ReplyPositions":
        """Return the positions of some sequences."""
        order = sorted(range(len(sequences)), key=lambda row: sequences[row].length)
        start, total = [0] * (len(sequences) + 1), 0
        for row in order:
            start[row], total = total, total + len(sequences[row].reply_ids)
        start[-1] = total
        return cls(sequences, order, start)

    def __len__(self) -> int:
        return self.start[-1]

    @property
    def parts(self) -> list[list[int]]:
        """The sequences in parts of nearly equal length."""
        return [self.order[at : at + PART_REPLIES] for at in range(0, len(self.order), PART_REPLIES)]

    def place(self, rows: Sequence[int]) -> slice:
        """Return where the positions of sequences lie that follow each other in the order."""
        return slice(self.start[rows[0]], self.start[rows[-1]] + len(self.sequences[rows[-1]].reply_ids))

    def digest(self, *more: object) -> str:
        """Return a hex digest of the sequences and of further JSON values."""
        hashed = blake3(canonical_json([FORMAT, *more]).encode())
        for item in self.sequences:
            hashed.update(repr((item.prompt_ids, item.reply_ids)).encode())
        return hashed.hexdigest()


def read_positions(
    read: Callable[[ReplyBatch, list[int]], None],
    positions: ReplyPositions,
    files: StateFiles,
    backbone: Backbone,
    *,
    reader: str,
    pad_id: int,
    on_batch: Callable[[int], None],
) -> None:
    """Read all replies in batches that fit into memory; parts that the files already hold are not read again.

    Args:
        read: reads a batch and writes its rows into the columns; gets the batch, and the part of it.
        positions: of the replies. files: with the columns. backbone: the model that reads.
        reader: identifies the model, see `StateFiles.unfinished`.
        pad_id: of the tokenizer. on_batch: called with the number of replies read.
    """
    sequences = positions.sequences
    budget = token_budget(backbone.device, bytes_per_token=bytes_per_token(backbone))
    on_batch(sum(map(len, positions.parts[: files.n_finished(reader)])))
    for part in files.unfinished(positions.parts, reader=reader):

        def run(rows: list[int], part: list[int] = part) -> None:
            read(pad_replies(sequences, rows, pad_id=pad_id), part)

        for batch in token_budget_batches([sequences[row].length for row in part], budget=budget):
            for rows, _ in halving(run, [part[at] for at in batch], remedy=REMEDY):
                on_batch(len(rows))


def reply_hidden(backbone: Backbone, batch: ReplyBatch) -> Tensor:
    """Return [M, H], float32: the last hidden state at each of the M positions whose next token belongs to a reply.

    Rows come one after the other. `backbone.logits` of them are the logits at these positions alone, so that the
    logits [B, S, V] of whole prompts are never computed.
    """
    device = backbone.device
    hidden = backbone.hidden(batch.input_ids.to(device), attention_mask=batch.attention_mask.to(device))
    return hidden[batch.predicts_reply.to(hidden.device)]


def candidates_at(backbone: Backbone, hidden: Tensor, plausible_k: int) -> Candidates:
    """Return the plausible tokens after hidden states [M, H], from the logits of a few positions at a time."""
    parts = []
    for some in _chunks(backbone, hidden):
        logits = backbone.logits(some)
        value, ids = top_candidates(logits, plausible_k)
        parts.append((value, ids, value - logits.logsumexp(-1, keepdim=True)))
    return Candidates(*map(torch.cat, zip(*parts, strict=True)))


def log_probability_of(backbone: Backbone, hidden: Tensor, ids: Tensor) -> Tensor:
    """Return log-probabilities [M, K] of tokens [M, K] after hidden states [M, H], a few positions at a time."""
    parts = []
    for some, chosen in zip(_chunks(backbone, hidden), _chunks(backbone, ids.to(hidden.device)), strict=True):
        logits = backbone.logits(some)
        parts.append(logits.gather(-1, chosen) - logits.logsumexp(-1, keepdim=True))
    return torch.cat(parts)


def top_candidates(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the K highest logits of [M, V] and their ids, both [M, K], as `plausible` does but faster for large V.

    The K highest lie in the K groups of tokens with the highest maxima, so that only these are sorted.

    Examples:
        >>> top_candidates(torch.tensor([[0.0, 3.0, 1.0]]), 2)[1]
        tensor([[1, 2]])
    """
    n_groups = logits.shape[-1] // GROUP
    if k >= n_groups:
        return plausible(logits, k)
    grouped = logits[:, : n_groups * GROUP].reshape(len(logits), n_groups, GROUP)  # [M, G, 64]
    groups = grouped.amax(-1).topk(k, dim=-1).indices  # [M, K]
    ids = (groups[..., None] * GROUP + torch.arange(GROUP, device=logits.device)).flatten(1)  # [M, K * 64]
    rest = torch.arange(n_groups * GROUP, logits.shape[-1], device=logits.device).expand(len(logits), -1)
    ids = torch.cat([ids, rest], -1)
    value, at = logits.gather(-1, ids).topk(k, dim=-1)
    return value, ids.gather(-1, at)


def bytes_per_token(backbone: Backbone) -> int:
    """Return about how much memory a forward pass without gradients needs for each token of a batch."""
    config, size = backbone.model.config.get_text_config(), backbone.output_weight.element_size()
    hidden = backbone.output_weight.shape[1]
    inner = max(getattr(config, "intermediate_size", None) or 4 * hidden, hidden)
    return int(size * (3 * inner + 8 * hidden) + 8 * hidden)


def parameter_digest(model: nn.Module) -> str:
    """Return a hex digest of a model's parameters, by which hidden states belong to it."""
    return tensor_digest(value for _, value in sorted(model.named_parameters()))


def tensor_digest(tensors: Iterable[Tensor]) -> str:
    """Return a hex digest of the shapes, dtypes and bytes of tensors."""
    hashed = blake3(max_threads=blake3.AUTO)
    for value in tensors:
        hashed.update(f"{list(value.shape)} {value.dtype}".encode())
        hashed.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return hashed.hexdigest()


def _chunks(backbone: Backbone, values: Tensor) -> tuple[Tensor, ...]:
    """Return values at M positions in chunks of positions whose logits are few enough."""
    return torch.split(values, max(1, MOST_LOGITS // len(backbone.output_weight)))
