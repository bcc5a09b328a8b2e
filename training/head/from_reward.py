"""From a reward model and pairs of replies to a compact head, with its distance to the reward model.

A head that is fitted to the replies of the data alone meets prefixes in decoding that it was never taught on, so it is
also taught on replies of its own first draft (Agarwal et al. 2024, arXiv 2306.13649).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from prosocial.core.batches import EncodedReply, encode_reply
from prosocial.core.chat import ChatTokenizer
from prosocial.core.progress import SILENT, Progress
from prosocial.core.protocols import Message
from prosocial.steering.decoding.config import DecodingConfig
from prosocial.steering.decoding.controls import Steering
from prosocial.steering.head import CompactHead
from prosocial.steering.steered_model import SteeredModel

from ..drawn_replies import draw_replies
from ..reply_sampling import DEFAULT_SAMPLING, ReplySampling
from ..reward.held_out import split_pairs
from ..reward.model import RewardModel
from ..reward.pairs import Pair
from ..state_files import StateFiles, state_folder
from .distance import HeadDistance, head_distance
from .distil import collect_passes, distil_head, training_preferences
from .settings import DistilTraining
from .states import TeacherStates, collect_states, unadapted_backbone

Prompt = Sequence[Message]


@dataclass(frozen=True)
class DistilledHead:
    """What `distil` returns.

    Attributes:
        head: the head.
        training: how it was distilled.
        distances: by attribute, the distance to the reward model at the preference for this attribute alone, on
            held-out replies.
    """

    head: CompactHead
    training: DistilTraining
    distances: Mapping[str, HeadDistance]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON, as it stands under `extra` in `head_config.json`."""
        return {
            "training": self.training.model_dump(mode="json"),
            "explained_share": {name: distance.explained for name, distance in self.distances.items()},
            "distance": {name: distance.to_json() for name, distance in self.distances.items()},
        }

    def save(self, folder: Path | str, *, checkpoint_fingerprint: str) -> None:
        """Write the head and its record into `folder`, creating it if it does not exist."""
        self.head.save(folder, checkpoint_fingerprint=checkpoint_fingerprint, extra=self.to_json())

    @property
    def summary(self) -> str:
        """One line for people."""
        explained = [distance.explained for distance in self.distances.values()]
        return f"rank {self.training.rank}, explains {min(explained):.0%} to {max(explained):.0%} of its teacher"


def distil(
    reward: RewardModel,
    pairs: Sequence[Pair],
    *,
    tokenizer: ChatTokenizer,
    training: DistilTraining,
    sampling: ReplySampling = DEFAULT_SAMPLING,
    seed: int = 0,
    scratch: Path | str | None = None,
    progress: Progress = SILENT,
) -> DistilledHead:
    """Distil a reward model into a compact head, and measure the head's distance to it on held-out pairs.

    Args:
        reward: a reward model of the edited model.
        pairs: two or more; the last tenth is held out. Their labels are not used.
        tokenizer: of the edited model.
        training: how to distil. sampling: how the draft's own replies are drawn.
        seed: of the initial values, the batches, the preferences and the draft's replies.
        scratch: folder for hidden states, from which an interrupted distillation continues; None: a temporary one.
        progress: receives the number of replies that the reward model has read.

    Raises:
        InputError: fewer than 2 pairs, a loss that is not finite, or a reward model that adapts the output embedding.
    """
    train, held_out = split_pairs(pairs)
    weight = unadapted_backbone(reward).output_weight
    sequences = _encoded(train, tokenizer, training.max_tokens)[: training.sequences]
    progress.start(len(sequences) * training.passes + training.on_policy, "read the teacher and fit the head")
    names = reward.config.attributes
    with state_folder(scratch) as folder:
        states = teacher_states(
            reward,
            sequences,
            [pair.messages for pair in train],
            tokenizer=tokenizer,
            training=training,
            sampling=sampling,
            seed=seed,
            scratch=folder,
            on_batch=progress.advance,
        )
        head = distil_head(states, weight, attributes=names, training=training, seed=seed)
        unseen = _encoded(held_out, tokenizer, training.max_tokens)
        corners = torch.eye(len(names))[:, None].expand(-1, len(unseen), -1)  # [k, n, k]
        distances: dict[str, HeadDistance] = {}
        for name, corner in zip(names, corners, strict=True):
            files = StateFiles(folder / f"held-out-{len(distances)}")
            at = collect_states(
                reward, unseen, corner, plausible_k=training.plausible_k, pad_id=tokenizer.pad_id, files=files
            )
            distances[name] = head_distance(head, at, weight, inverse_beta=training.inverse_beta)
    return DistilledHead(head, training, distances)


class _Reading(TypedDict):
    """What two readings share."""

    pad_id: int
    on_batch: Callable[[int], None]


def teacher_states(
    reward: RewardModel,
    sequences: Sequence[EncodedReply],
    prompts: Sequence[Prompt],
    *,
    tokenizer: ChatTokenizer,
    training: DistilTraining,
    sampling: ReplySampling = DEFAULT_SAMPLING,
    seed: int = 0,
    scratch: Path | None = None,
    on_batch: Callable[[int], None] = lambda n: None,
) -> TeacherStates:
    """Return the states that a head is fitted to: those of the data's replies, then those of a draft's own replies.

    Args:
        reward: the teacher.
        sequences: replies of the data.
        prompts: what the draft replies to, in turn, `training.on_policy` times.
        tokenizer: of the model. training: how to distil. sampling: how the draft's replies are drawn.
        seed: of the preferences, the draft and its replies.
        scratch: folder for the states; None keeps them in memory.
        on_batch: called with the number of sequences read.
    """
    names, tokens = reward.config.attributes, _Reading(pad_id=tokenizer.pad_id, on_batch=on_batch)
    files, own_files = (StateFiles(None if scratch is None else scratch / name) for name in ("replies", "own"))
    states = collect_passes(reward, sequences, training=training, seed=seed, files=files, **tokens)
    if not training.on_policy:
        return states
    half = training.model_copy(update={"steps": max(1, training.steps // 2)})
    weight = unadapted_backbone(reward).output_weight
    draft = distil_head(states, weight, attributes=names, training=half, seed=seed)
    preferences = training_preferences(training.on_policy, len(names), training, seed + 1)
    drawn = _own_replies(
        _ungated(reward, draft, training, tokenizer),
        [prompts[row % len(prompts)] for row in range(training.on_policy)],
        preferences,
        tokenizer=tokenizer,
        sampling=sampling,
        seed=seed + 1,
        folder=scratch,
    )
    own = collect_states(reward, drawn, preferences, plausible_k=training.plausible_k, files=own_files, **tokens)
    return states.appended(own, files)


def _ungated(
    reward: RewardModel, head: CompactHead, training: DistilTraining, tokenizer: ChatTokenizer
) -> SteeredModel:
    """Return the unadapted model with a head and no gate."""
    config = DecodingConfig(
        attributes=list(head.attributes),
        categories=["other"],  # without a gate no category has an effect
        plausible_k=training.plausible_k,
        beta=1 / training.inverse_beta,
    )
    model = unadapted_backbone(reward).model
    return SteeredModel(model, head, None, config, end_ids=tokenizer.end_ids)


def _own_replies(
    steered: SteeredModel,
    prompts: Sequence[Prompt],
    preferences: Tensor,
    *,
    tokenizer: ChatTokenizer,
    sampling: ReplySampling,
    seed: int,
    folder: Path | None,
) -> list[EncodedReply]:
    """Draw one reply to each prompt under its preference of [n, k]."""
    names = steered.config.attributes
    steering = [Steering(preference=dict(zip(names, row, strict=True))) for row in preferences.tolist()]
    replies = draw_replies(steered, prompts, tokenizer, steering=steering, sampling=sampling, seed=seed, folder=folder)
    return [
        EncodedReply(
            tuple(tokenizer.encode_chat(messages)),
            reply.token_ids + (tokenizer.end_ids[:1] if reply.finish == "end" else ()),
        )
        for messages, reply in zip(prompts, replies, strict=True)
    ]


def _encoded(pairs: Sequence[Pair], tokenizer: ChatTokenizer, max_tokens: int) -> list[EncodedReply]:
    """Return all first replies and then all second ones."""
    replies = [(pair, pair.first) for pair in pairs] + [(pair, pair.second) for pair in pairs]
    return [encode_reply(tokenizer, pair.messages, text, max_tokens=max_tokens) for pair, text in replies]
