"""Pairs as token ids with the signs of their labels, and their rewards."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prosocial.core.batches import EncodedReply, encode_reply, pad_replies
from prosocial.core.chat import ChatTokenizer

from ..reply_log_probability import reply_log_probability
from .model import RewardModel
from .pairs import Pair
from .pairs import require_labels as require_labelled


@dataclass(frozen=True)
class EncodedPairs:
    """n pairs as token ids with the signs of their labels.

    Attributes:
        sequences: 2n sequences, all first replies and then all second replies.
        signs: [n, k], +1 where the first reply is better, -1 where the second is, 0 for a tie or a missing label.
    """

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
        """Encode pairs with a tokenizer.

        Args:
            pairs: the pairs.
            tokenizer: tokenizer of the reward model's language model.
            attributes: names of the attributes, in the order of the preference vector.
            max_tokens: maximum number of tokens of a prompt with its reply.
            require_labels: whether every attribute must have a label in some pair.

        Raises:
            InputError: an attribute has no label in any pair, and labels are required.
        """
        replies = [(pair, pair.first) for pair in pairs] + [(pair, pair.second) for pair in pairs]
        sequences = [encode_reply(tokenizer, pair.messages, text, max_tokens=max_tokens) for pair, text in replies]
        if require_labels:
            require_labelled(pairs, attributes)
        return cls(sequences, torch.tensor([pair.signs(attributes) for pair in pairs], dtype=torch.float32))

    def rewards(
        self, reward: RewardModel, rows: Sequence[int], preference: Tensor, pad_id: int
    ) -> tuple[Tensor, Tensor]:
        """Return the rewards [B] of the first and of the second replies of the pairs `rows`.

        Args:
            reward: the reward model.
            rows: [B], indices of pairs.
            preference: [B, k], one preference per pair.
            pad_id: token id for padding.
        """
        n = len(self)
        batch = pad_replies(self.sequences, [*rows, *(row + n for row in rows)], pad_id=pad_id)
        with reward.use(preference.repeat(2, 1)):
            first, second = reply_log_probability(reward.backbone, batch).cpu().chunk(2)
        return first, second

    def lengths(self, rows: Sequence[int]) -> list[int]:
        """Return the number of tokens that each of the pairs `rows` takes in a batch, both replies padded alike."""
        n = len(self)
        return [2 * max(self.sequences[row].length, self.sequences[row + n].length) for row in rows]

    def n_reply_tokens(self, rows: Sequence[int]) -> int:
        """Return the total number of reply tokens of the pairs `rows`, both replies counted."""
        n = len(self)
        return sum(len(self.sequences[at].reply_ids) for row in rows for at in (row, row + n))


def label_agreement(signs: Tensor) -> list[list[float | None]]:
    """Return, for each two attributes, the share of pairs labelled for both where both prefer the same reply.

    An entry of the k x k result is None if no pair is labelled for both. Where two attributes prefer different replies,
    their gradients on the pair are exactly opposed, because both depend on the same two log-probabilities.

    Examples:
        >>> label_agreement(torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
        [[1.0, 0.5], [0.5, 1.0]]
    """
    labelled = (signs != 0).double()
    both = labelled.T @ labelled  # [k, k]
    same = (both + signs.double().T @ signs.double()) / 2
    return [
        [float(part / total) if total > 0 else None for part, total in zip(row, totals, strict=True)]
        for row, totals in zip(same, both, strict=True)
    ]
