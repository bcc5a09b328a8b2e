"""Pairs as token ids with the signs of their labels, and what a reward model says of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prosocial.core.batches import EncodedReply, encode_reply, pad_replies
from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import InputError

from .loss import reply_log_probability
from .model import RewardModel
from .pairs import Pair


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs as token ids (2n sequences: first replies, then second ones) with their labels' signs [n, k]."""

    sequences: list[EncodedReply]
    signs: Tensor

    def __len__(self) -> int:
        return len(self.signs)

    @classmethod
    def from_pairs(
        cls,
        pairs: Sequence[Pair],
        *,
        tokenizer: ChatTokenizer,
        attributes: Sequence[str],
        max_tokens: int,
        require_labels: bool = True,
    ) -> "EncodedPairs":
        """Encode every pair.

        Raises:
            InputError: an attribute has no label in any pair, and labels are required.
        """
        replies = [(pair, pair.first) for pair in pairs] + [(pair, pair.second) for pair in pairs]
        sequences = [encode_reply(tokenizer, pair.messages, text, max_tokens=max_tokens) for pair, text in replies]
        signs = torch.tensor([pair.signs(attributes) for pair in pairs], dtype=torch.float32)
        unlabelled = [name for index, name in enumerate(attributes) if not signs[:, index].any()]
        if unlabelled and require_labels:
            raise InputError(f"every attribute should have labelled pairs: {', '.join(unlabelled)} has none")
        return cls(sequences, signs)

    def rewards(
        self, reward: RewardModel, rows: Sequence[int], preference: Tensor, pad_id: int
    ) -> tuple[Tensor, Tensor]:
        """Return the [B] log-probabilities of the rows' first and second replies under preferences [B, k]."""
        n = len(self)
        batch = pad_replies(self.sequences, [*rows, *(row + n for row in rows)], pad_id=pad_id)
        logits = reward.logits(batch.input_ids, batch.attention_mask, preference.repeat(2, 1))
        at = (batch.next_ids.to(logits.device), batch.predicts_reply.to(logits.device))
        first, second = reply_log_probability(logits, *at).cpu().chunk(2)
        return first, second

    def n_reply_tokens(self, rows: Sequence[int]) -> int:
        """Return how many reply tokens the rows' two replies have together."""
        n = len(self)
        return sum(len(self.sequences[at].reply_ids) for row in rows for at in (row, row + n))


def label_agreement(signs: Tensor) -> list[list[float | None]]:
    """Return [k][k]: of the pairs labelled for both attributes, the share where both prefer the same reply.

    None where no pair is labelled for both. Where two attributes disagree on a pair their gradients on it are exactly
    opposed, since both read the same two log-probabilities.
    """
    labelled = (signs != 0).double()
    both = labelled.T @ labelled  # [k, k]
    same = (both + signs.double().T @ signs.double()) / 2
    return [
        [float(part / total) if total > 0 else None for part, total in zip(row, totals, strict=True)]
        for row, totals in zip(same, both, strict=True)
    ]
