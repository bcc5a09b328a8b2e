"""The teacher's log-ratios at every position of some replies, computed once, so that epochs run no language model.

Teacher: the edited model's logits plus `(1 / beta) * (log pi_p - log pi)`, the log-ratio of the reward model under
preference p to the unadapted model. (GenARM, arXiv 2410.08193, adds `log pi_p` itself; the ratio leaves out the part
that every preference shares with the base, so that an untrained reward model shifts nothing.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prosocial.core.batches import EncodedReply, ReplyBatch
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
from ..reward.model import RewardModel
from ..state_files import BLOCK_ROWS, Shapes, StateFiles


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

    @property
    def row_bytes(self) -> int:
        """Bytes of one state."""
        position = self.hidden[:1].nbytes + self.candidates[:1].nbytes + self.z0[:1].nbytes
        return position + self.preference[:1].nbytes + self.shift[:1].nbytes

    def rows(self, chosen: Tensor, *, device: torch.device | str = "cpu") -> "TeacherStates":
        """Return some states, each with a position of its own, on a device and with hidden states in float32."""
        at = self.position[chosen]
        own = torch.arange(len(chosen))
        taken = (self.hidden[at].float(), self.candidates[at].long(), self.z0[at], own)
        return TeacherStates(*(value.to(device) for value in (*taken, self.preference[chosen], self.shift[chosen])))

    def teacher(self, inverse_beta: float) -> Tensor:
        """Return [M, K] log-probabilities of the teacher on the plausible set."""
        return (self.z0[self.position] + inverse_beta * self.shift).log_softmax(-1)

    def appended(self, more: "TeacherStates", files: StateFiles) -> "TeacherStates":
        """Return these states and then others.

        Args:
            more: other states. files: where these states are.
        """
        start = len(self.hidden)
        for part in torch.split(torch.arange(len(more.hidden)), BLOCK_ROWS):
            files.append({name: getattr(more, name)[part] for name in ("hidden", "candidates", "z0")})
        for part in torch.split(torch.arange(len(more)), BLOCK_ROWS):
            moved = {"position": more.position[part] + start}
            files.append(moved | {name: getattr(more, name)[part] for name in ("preference", "shift")})
        return TeacherStates(**files.columns)


@torch.no_grad()
def collect_states(
    reward: RewardModel,
    sequences: Sequence[EncodedReply],
    preferences: Tensor,
    *,
    plausible_k: int,
    pad_id: int,
    files: StateFiles | None = None,
    on_batch: Callable[[int], None] = lambda n: None,
) -> TeacherStates:
    """Run the unadapted model once and the reward model once per pass over every reply position.

    Args:
        reward: the reward model; its unadapted model is the edited one.
        sequences: replies. pad_id: of the tokenizer.
        preferences: [n, k] for one pass, or [passes, n, k]: sequence i is read under preference i of each pass.
        plausible_k: K, candidates per position.
        files: where the states are kept; default: in memory.
        on_batch: called with the number of sequences read, once for each pass.

    Raises:
        InputError: the reward model adapts the output embedding, on which the head's shift is defined, or one reply
            does not fit into memory.
        StorageError: the disk is full.
    """
    backbone, positions = unadapted_backbone(reward), ReplyPositions.of(sequences)
    by_pass = preferences if preferences.dim() == 3 else preferences[None]
    files = StateFiles() if files is None else files
    digest = positions.digest(parameter_digest(reward.peft), tensor_digest([by_pass]), plausible_k)
    columns = files.open(_shapes(backbone, len(positions), by_pass, plausible_k), key=digest)

    def read(batch: ReplyBatch, part: list[int]) -> None:
        whole, place = positions.place(part), positions.place(batch.rows.tolist())
        hidden = reply_hidden(backbone, batch)
        z0, candidates, base = candidates_at(backbone, hidden, plausible_k)
        columns["hidden"][place] = hidden.to(device="cpu", dtype=columns["hidden"].dtype)
        columns["candidates"][place], columns["z0"][place] = candidates.cpu().int(), z0.cpu()
        at = batch.predicts_reply
        for number, preference in enumerate(by_pass[:, batch.rows]):  # [B, k]
            with reward.use(preference):
                adapted = log_probability_of(backbone, reply_hidden(backbone, batch), candidates)
            states = _shifted(place, whole, number, len(by_pass))
            columns["position"][states] = torch.arange(place.start, place.stop)
            columns["preference"][states] = preference[:, None].expand(-1, at.shape[1], -1)[at]
            columns["shift"][states] = (adapted - base).cpu()

    read_positions(
        read,
        positions,
        files,
        backbone,
        reader="reward",
        pad_id=pad_id,
        on_batch=lambda n: on_batch(n * len(by_pass)),
    )
    return TeacherStates(**columns)


def _shapes(backbone: Backbone, n: int, by_pass: Tensor, plausible_k: int) -> Shapes:
    """Return the shapes of all columns: N positions, each in every pass."""
    weight, m = backbone.output_weight, n * len(by_pass)
    k = min(plausible_k, len(weight))
    return {
        "hidden": ((n, weight.shape[1]), weight.dtype),
        "candidates": ((n, k), torch.int32),
        "z0": ((n, k), torch.float32),
        "position": ((m,), torch.long),
        "preference": ((m, by_pass.shape[-1]), torch.float32),
        "shift": ((m, k), torch.float32),
    }


def _shifted(place: slice, whole: slice, number: int, n_passes: int) -> slice:
    """Return where the states of a pass over positions lie: each part has its passes one after the other.

    Args:
        place: the positions, within `whole`, those of their part.
        number: of the pass, from 0. n_passes: number of passes.
    """
    start = n_passes * whole.start + number * (whole.stop - whole.start) - whole.start
    return slice(start + place.start, start + place.stop)


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
