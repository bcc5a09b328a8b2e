"""What the teacher says at every position of some replies, read once and kept: an epoch then costs no model.

Teacher: the edited model's logits plus `(1 / beta) * (log pi_p - log pi)`, the log-ratio of the reward model under
preference p to the unadapted model. (GenARM, arXiv 2410.08193, adds `log pi_p` itself; the ratio leaves out the part
that every preference shares with the base, so that an untrained reward model shifts nothing.)
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from prosocial.core.batches import EncodedReply, length_sorted_batches, pad_replies
from prosocial.steering.plausible import plausible

from ..reward.model import RewardModel


@dataclass(frozen=True)
class TeacherStates:
    """The teacher at M states: N positions, each under one or more preferences.

    Attributes:
        hidden: [N, H] last hidden states of the unadapted model.
        candidates: [N, K] plausible token ids.
        z0: [N, K] the unadapted model's logits of the candidates.
        position: [M] the position of each state.
        preference: [M, k].
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
    """Run the unadapted model once and the teacher once per pass over every reply position.

    Args:
        preferences: [n, k] for one pass, or [passes, n, k]: sequence i is read under preference i of each pass.
        on_batch: told how many sequences were read, once for each pass.
    """
    by_pass = preferences if preferences.dim() == 3 else preferences[None]
    found: list[TeacherStates] = []
    with _last_hidden(reward) as hidden_of:
        for rows in length_sorted_batches(sequences, batch_size=batch_size):
            batch = pad_replies(sequences, rows, pad_id=pad_id)
            at = batch.predicts_reply
            own = reward.logits(batch.input_ids, batch.attention_mask, None).float()[at]
            hidden = hidden_of[-1].float()[at]
            z0, candidates = plausible(own, plausible_k)
            base = own.log_softmax(-1).gather(-1, candidates)
            shifts, asked = [], []
            for preference in by_pass[:, batch.rows]:  # [B, k]
                adapted = reward.logits(batch.input_ids, batch.attention_mask, preference).float()[at]
                shifts.append(adapted.log_softmax(-1).gather(-1, candidates) - base)
                asked.append(preference[:, None].expand(-1, at.shape[1], -1)[at])
                on_batch(len(rows))
            position = torch.arange(len(hidden)).repeat(len(by_pass))
            found.append(TeacherStates(hidden, candidates, z0, position, torch.cat(asked), torch.cat(shifts)))
    return TeacherStates.joined(found)


@contextmanager
def _last_hidden(reward: RewardModel) -> Iterator[list[Tensor]]:
    """Yield a list whose last entry is what the output embedding was last given."""
    seen: list[Tensor] = []
    embedding = reward.model.get_output_embeddings()  # type: ignore[operator]
    hook = embedding.register_forward_pre_hook(lambda module, arguments: seen.__setitem__(slice(None), arguments[:1]))
    try:
        yield seen
    finally:
        hook.remove()
