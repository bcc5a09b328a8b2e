"""The teacher's log-ratios at every position of some replies, computed once, so that epochs run no language model.

Teacher: the edited model's logits plus `(1 / beta) * (log pi_p - log pi)`, the log-ratio of the reward model under
preference p to the unadapted model. (GenARM, arXiv 2410.08193, adds `log pi_p` itself; the ratio leaves out the part
that every preference shares with the base, so that an untrained reward model shifts nothing.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prosocial.core.batches import EncodedReply, length_sorted_batches, pad_replies
from prosocial.core.errors import InputError
from prosocial.steering.backbone import Backbone
from prosocial.steering.plausible import plausible

from ..reply_states import reply_hidden
from ..reward.model import RewardModel


@dataclass(frozen=True)
class TeacherStates:
    """The teacher at M states: N positions, each under one or more preferences.

    Attributes:
        hidden: [N, H] last hidden states of the unadapted model.
        candidates: [N, K] plausible token ids.
        z0: [N, K] the unadapted model's logits of the candidates.
        position: [M] index of each state's position.
        preference: [M, k] preference of each state.
        shift: [M, K] log pi_p - log pi of the candidates.
    """

    hidden: Tensor
    candidates: Tensor
    z0: Tensor
    position: Tensor
    preference: Tensor
    shift: Tensor

    def __len__(self) -> int:
        return len(self.position)

    def rows(self, chosen: Tensor) -> "TeacherStates":
        """Return some states, each with a position of its own."""
        at = self.position[chosen]
        own = torch.arange(len(chosen))
        return TeacherStates(
            self.hidden[at], self.candidates[at], self.z0[at], own, self.preference[chosen], self.shift[chosen]
        )

    def teacher(self, inverse_beta: float) -> Tensor:
        """Return [M, K] log-probabilities of the teacher on the plausible set."""
        return (self.z0[self.position] + inverse_beta * self.shift).log_softmax(-1)

    @classmethod
    def joined(cls, parts: Sequence["TeacherStates"]) -> "TeacherStates":
        """Return the states of several readings as one."""
        starts = torch.tensor([0, *(len(part.hidden) for part in parts)]).cumsum(0)
        position = torch.cat([part.position + start for part, start in zip(parts, starts, strict=False)])
        names = ("hidden", "candidates", "z0", "preference", "shift")
        hidden, candidates, z0, preference, shift = (torch.cat([getattr(p, name) for p in parts]) for name in names)
        return cls(hidden, candidates, z0, position, preference, shift)


@torch.no_grad()
def collect_states(
    reward: RewardModel,
    sequences: Sequence[EncodedReply],
    preferences: Tensor,
    *,
    plausible_k: int,
    pad_id: int,
    batch_size: int = 64,
    on_batch: Callable[[int], None] = lambda n: None,
) -> TeacherStates:
    """Run the unadapted model once and the reward model once per pass over every reply position.

    Args:
        reward: the reward model; its unadapted model is the edited one.
        sequences: replies. pad_id: of the tokenizer.
        preferences: [n, k] for one pass, or [passes, n, k]: sequence i is read under preference i of each pass.
        plausible_k: K, candidates per position. batch_size: sequences at once.
        on_batch: called with the number of sequences read, once for each pass.

    Raises:
        InputError: the reward model adapts the output embedding, on which the head's shift is defined.
    """
    backbone = unadapted_backbone(reward)
    by_pass = preferences if preferences.dim() == 3 else preferences[None]
    parts: list[TeacherStates] = []
    for rows in length_sorted_batches(sequences, batch_size=batch_size):
        batch = pad_replies(sequences, rows, pad_id=pad_id)
        at = batch.predicts_reply
        hidden = reply_hidden(backbone, batch)
        own = backbone.logits(hidden)  # [N, V]
        z0, candidates = plausible(own, plausible_k)
        base = own.log_softmax(-1).gather(-1, candidates)
        shifts, given = [], []
        for preference in by_pass[:, batch.rows]:  # [B, k]
            with reward.use(preference):
                adapted = backbone.logits(reply_hidden(backbone, batch))
            shifts.append(adapted.log_softmax(-1).gather(-1, candidates) - base)
            given.append(preference[:, None].expand(-1, at.shape[1], -1)[at])
            on_batch(len(rows))
        position = torch.arange(len(hidden)).repeat(len(by_pass))
        parts.append(TeacherStates(hidden, candidates, z0, position, torch.cat(given), torch.cat(shifts)))
    return TeacherStates.joined(parts)


def unadapted_backbone(reward: RewardModel) -> Backbone:
    """Return the reward model's language model, which outside of `reward.use` is the unadapted one.

    Raises:
        InputError: the reward model adapts the output embedding.
    """
    if not isinstance(reward.model.get_output_embeddings(), nn.Linear):  # type: ignore[operator]
        raise InputError(
            f"a reward model that is distilled should adapt layers below the output embedding only, but its targets "
            f"{reward.config.targets!r} match that too: train it with other adapter.targets"
        )
    return Backbone(reward.model)  # type: ignore[arg-type]
