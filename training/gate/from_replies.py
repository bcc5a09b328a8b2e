"""From labelled replies to a gate: read them, train, harden on on-policy replies, scale on held-out ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedModel

from prosocial.core.batches import held_out_split
from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import InputError, UnknownNameError
from prosocial.core.progress import SILENT, Progress
from prosocial.core.protocols import Judge, Message
from prosocial.steering.decoding.config import DecodingConfig
from prosocial.steering.gate import HarmGate
from prosocial.steering.steered_model import SteeredModel

from ..drawn_replies import draw_replies
from ..reply_sampling import DEFAULT_SAMPLING, ReplySampling
from ..state_files import StateFiles, state_folder
from .on_policy import hard_positions
from .replies import LabelledReply, label_replies, require_both_kinds
from .scaling import PlattScaling, apply_scaling, fit_scaling
from .settings import GateSettings
from .states import GateStates, Model, collect_gate_states, opened, require_one_vocabulary
from .trained_gate import TrainedGate
from .training import train_gate

ON_POLICY_SEED = 12  # added to the seed of the training


@dataclass(frozen=True)
class OnPolicyPrompts:
    """Where on-policy replies come from.

    Attributes:
        conversations: prompts, harmful ones among them.
        judge: labels the replies by harm category.
        sampling: how the replies are drawn.
    """

    conversations: Sequence[Sequence[Message]]
    judge: Judge
    sampling: ReplySampling = DEFAULT_SAMPLING


def train_gate_on_replies(
    edited: Model,
    replies: Sequence[LabelledReply],
    *,
    tokenizer: ChatTokenizer,
    categories: Sequence[str],
    settings: GateSettings,
    harmful: Model | None = None,
    on_policy: OnPolicyPrompts | None = None,
    plausible_k: int = 128,
    seed: int = 0,
    scratch: Path | str | None = None,
    progress: Progress = SILENT,
) -> TrainedGate:
    """Train a gate for a model on labelled replies and scale it on the last of them.

    With `settings.on_policy.count` a draft is trained first. The edited model replies under this draft, and the replies
    that leak, or that the draft came near to stopping, are trained on too.

    Args:
        edited: the model that the gate belongs to, or a function that opens it.
        replies: labelled; the last `settings.held_out_share` of them are kept for the scaling.
        tokenizer: of the model. categories: names of the harm categories, in the order of the gate.
        settings: how to train.
        harmful: a harmful model of the same vocabulary, as a dense signal, or a function that opens it; None: there is
            no such signal. If both models are opened by functions, only one is in memory at a time.
        on_policy: needed if `settings.on_policy.count` is above 0; the first `count` prompts are used.
        plausible_k: tokens per position that the gate has to tell apart, as in decoding.
        seed: of the initial values, the batches and the on-policy replies.
        scratch: folder for hidden states, from which an interrupted training continues; None: a temporary one.
        progress: receives the progress of the work.

    Raises:
        InputError: the replies to train on are all harmful or all harmless, the models' vocabularies differ, prompts
            are missing, the judge labels none of the on-policy replies, or one reply does not fit into memory.
        UnknownNameError: a reply has a category that is not among `categories`.
        StorageError: the disk has no room for the hidden states.
    """
    first, held_out = held_out_split(replies, settings.held_out_share)
    _require_trainable(first, replies, categories)
    if settings.on_policy.count and on_policy is None:
        raise InputError(f"on_policy.count is {settings.on_policy.count}: give prompts and a judge, or leave it at 0")
    size, device = _size_and_device(opened(edited))
    if harmful is not None:
        require_one_vocabulary(size, _size_and_device(opened(harmful))[0])
    source = on_policy if settings.on_policy.count else None
    with state_folder(scratch) as folder:
        making = _Making(
            edited, harmful, tokenizer, tuple(categories), size, device, settings, plausible_k, seed, progress
        )
        return making.trained(first, held_out, source, folder)


@dataclass(frozen=True)
class _Making:
    """Makes one gate."""

    edited: Model
    harmful: Model | None
    tokenizer: ChatTokenizer
    categories: tuple[str, ...]
    vocabulary_size: int
    device: torch.device
    settings: GateSettings
    plausible_k: int
    seed: int
    progress: Progress

    def trained(
        self,
        replies: Sequence[LabelledReply],
        held_out: Sequence[LabelledReply],
        on_policy: OnPolicyPrompts | None,
        folder: Path,
    ) -> TrainedGate:
        """Train a gate on replies, and scale it on others."""
        files, settings = StateFiles(folder / "replies"), self.settings
        states = self.read(replies, files)
        n_hard = n_unjudged = 0
        if on_policy is not None:
            draft = self.train(states, settings.draft())
            drawn, n_unjudged = self.drawn(draft, on_policy, folder)
            if drawn:
                more = self.read(drawn, StateFiles(folder / "on-policy"))
                near = settings.on_policy.near * settings.on_policy.threshold
                hard = hard_positions(draft, more, near=near).nonzero()[:, 0]
                n_hard, states = len(torch.unique(more.reply[hard])), states.appended(more, hard, files)
        gate = self.train(states, settings)
        scaling = self.scaling(gate, held_out, len(replies), StateFiles(folder / "held-out")) if held_out else None
        if scaling is not None and scaling.helps:
            apply_scaling(gate, scaling)
        n_replies = len(replies) + len(held_out)
        return TrainedGate(gate, settings, n_replies, len(states), n_hard, n_unjudged, scaling)

    def read(self, some: Sequence[LabelledReply], files: StateFiles) -> GateStates:
        """Return the states of replies."""
        self.progress.start(len(some) * (1 if self.harmful is None else 2), "read the replies")
        return collect_gate_states(
            self.edited,
            self.harmful,
            some,
            tokenizer=self.tokenizer,
            categories=self.categories,
            plausible_k=self.plausible_k,
            discount=self.settings.discount,
            files=files,
            on_batch=self.progress.advance,
        )

    def train(self, states: GateStates, training: GateSettings) -> HarmGate:
        """Return a gate that is fitted to states."""
        self.progress.start(training.steps, "train the gate")
        return train_gate(
            states,
            categories=self.categories,
            vocabulary_size=self.vocabulary_size,
            training=training,
            seed=self.seed,
            device=self.device,
            on_step=self.progress.advance,
        )

    def drawn(self, draft: HarmGate, source: OnPolicyPrompts, folder: Path) -> tuple[list[LabelledReply], int]:
        """Return labelled replies under a draft to the first prompts, and how many could not be judged."""
        threshold = self.settings.on_policy.threshold
        draw = _GatedDraw(opened(self.edited), draft, self.tokenizer, source, threshold, self.plausible_k, folder)
        return draw.labelled(self.settings.on_policy.count, seed=self.seed + ON_POLICY_SEED)

    def scaling(
        self, gate: HarmGate, held_out: Sequence[LabelledReply], n_before: int, files: StateFiles
    ) -> PlattScaling:
        """Return the scaling that fits replies, which are numbered on after `n_before` others."""
        states = self.read(held_out, files)
        return fit_scaling(gate, replace(states, reply=states.reply + n_before))


@dataclass(frozen=True)
class _GatedDraw:
    """Draws replies of a model under a draft of its gate, and lets a judge label them."""

    edited: PreTrainedModel
    draft: HarmGate
    tokenizer: ChatTokenizer
    source: OnPolicyPrompts
    threshold: float
    plausible_k: int
    folder: Path

    def labelled(self, count: int, *, seed: int) -> tuple[list[LabelledReply], int]:
        """Return labelled replies to the first prompts, without fallbacks, and how many could not be judged."""
        prompts, sampling = self.source.conversations[:count], self.source.sampling
        replies = draw_replies(self._model(), prompts, self.tokenizer, sampling=sampling, seed=seed, folder=self.folder)
        given = [pair for pair in zip(prompts, replies, strict=True) if pair[1].finish != "fallback"]
        return label_replies(
            [messages for messages, _ in given],
            [reply.text for _, reply in given],
            judge=self.source.judge,
            categories=self.draft.categories,
        )

    def _model(self) -> SteeredModel:
        config = DecodingConfig(
            attributes=["none"],  # without a head no attribute has an effect
            categories=list(self.draft.categories),
            plausible_k=self.plausible_k,
            harm_threshold=self.threshold,
            threshold_ceiling=self.threshold,
        )
        return SteeredModel(self.edited, None, self.draft, config, end_ids=self.tokenizer.end_ids)


def _require_trainable(
    training: Sequence[LabelledReply], replies: Sequence[LabelledReply], categories: Sequence[str]
) -> None:
    for name in sorted(frozenset().union(*(reply.categories for reply in replies)) - set(categories)):
        raise UnknownNameError("harm category", name, categories)
    require_both_kinds(training, where=f"the first {len(training)} of {len(replies)} replies, those to train on,")


def _size_and_device(model: PreTrainedModel) -> tuple[int, torch.device]:
    weight = model.get_output_embeddings().weight  # type: ignore[no-untyped-call]
    return len(weight), weight.device
