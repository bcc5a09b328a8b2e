"""From labelled replies to a gate: read them, train, harden on on-policy replies, scale on held-out ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from prosocial.core.batches import held_out_split
from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import InputError, UnknownNameError
from prosocial.core.progress import SILENT, Progress
from prosocial.core.protocols import Judge, Message
from prosocial.steering.decoding.config import DecodingConfig
from prosocial.steering.gate import HarmGate
from prosocial.steering.steered_model import SteeredModel

from ..reply_sampling import BATCH_SIZE, DEFAULT_SAMPLING, ReplySampling
from .on_policy import hard_positions
from .replies import LabelledReply, label_replies, require_both_kinds
from .scaling import apply_scaling, fit_scaling
from .settings import GateSettings
from .states import GateStates, collect_gate_states
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
    edited: PreTrainedModel,
    replies: Sequence[LabelledReply],
    *,
    tokenizer: ChatTokenizer,
    categories: Sequence[str],
    settings: GateSettings,
    harmful: PreTrainedModel | None = None,
    on_policy: OnPolicyPrompts | None = None,
    plausible_k: int = 128,
    seed: int = 0,
    progress: Progress = SILENT,
) -> TrainedGate:
    """Train a gate for a model on labelled replies and scale it on the last of them.

    With `settings.on_policy.count` a draft is trained first. The edited model replies under this draft, and the replies
    that leak, or that the draft came near to stopping, are trained on too.

    Args:
        edited: the model that the gate belongs to.
        replies: labelled; the last `settings.held_out_share` of them are kept for the scaling.
        tokenizer: of the model. categories: names of the harm categories, in the order of the gate.
        settings: how to train.
        harmful: a harmful model of the same vocabulary, as a dense signal; None: there is no such signal.
        on_policy: needed if `settings.on_policy.count` is above 0; the first `count` prompts are used.
        plausible_k: tokens per position that the gate has to tell apart, as in decoding.
        seed: of the initial values, the batches and the on-policy replies.
        progress: receives the progress of the work.

    Raises:
        InputError: the replies to train on are all harmful or all harmless, the models' vocabularies differ, prompts
            are missing, or the judge labels none of the on-policy replies.
        UnknownNameError: a reply has a category that is not among `categories`.
    """
    first, _ = held_out_split(replies, settings.held_out_share)
    _require_trainable(first, replies, categories)
    _require_one_vocabulary(edited, harmful)
    if settings.on_policy.count and on_policy is None:
        raise InputError(f"on_policy.count is {settings.on_policy.count}: give prompts and a judge, or leave it at 0")

    def read(some: Sequence[LabelledReply]) -> GateStates:
        progress.start(len(some), "read the replies")
        return collect_gate_states(
            edited,
            harmful,
            some,
            tokenizer=tokenizer,
            categories=categories,
            plausible_k=plausible_k,
            discount=settings.discount,
            on_batch=progress.advance,
        )

    def train(states: GateStates, training: GateSettings) -> HarmGate:
        progress.start(training.steps, "train the gate")
        return train_gate(
            states,
            categories=categories,
            vocabulary_size=_vocabulary_size(edited),
            training=training,
            seed=seed,
            on_step=progress.advance,
        )

    states = read(replies)
    is_held_out = states.reply >= len(first)
    training, held_out = states.rows(~is_held_out), states.rows(is_held_out)
    n_hard = n_unjudged = 0
    if on_policy is not None and settings.on_policy.count:
        draft = train(training, settings.draft())
        draw = _GatedDraw(edited, draft, tokenizer, on_policy, settings.on_policy.threshold, plausible_k)
        drawn, n_unjudged = draw.labelled(settings.on_policy.count, seed=seed + ON_POLICY_SEED)
        hard = _hard_states(draft, drawn, settings, read)
        if hard is not None:
            n_hard, training = len(set(hard.reply.tolist())), training.joined(hard)
    gate = train(training, settings)
    scaling = fit_scaling(gate, held_out) if is_held_out.any() else None
    if scaling is not None and scaling.helps:
        apply_scaling(gate, scaling)
    return TrainedGate(gate, settings, len(replies), len(training), n_hard, n_unjudged, scaling)


@dataclass(frozen=True)
class _GatedDraw:
    """Draws replies of a model under a draft of its gate, and lets a judge label them."""

    edited: PreTrainedModel
    draft: HarmGate
    tokenizer: ChatTokenizer
    source: OnPolicyPrompts
    threshold: float
    plausible_k: int

    def labelled(self, count: int, *, seed: int) -> tuple[list[LabelledReply], int]:
        """Return labelled replies to the first prompts, without fallbacks, and how many could not be judged."""
        prompts, sampling = self.source.conversations[:count], self.source.sampling
        replies = self._model().generate(
            prompts, self.tokenizer, **sampling.model_dump(), seed=seed, batch_size=BATCH_SIZE
        )
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


def _hard_states(
    draft: HarmGate,
    replies: Sequence[LabelledReply],
    settings: GateSettings,
    read: Callable[[Sequence[LabelledReply]], GateStates],
) -> GateStates | None:
    """Return the states of the replies worth training on; None if there are none."""
    if not replies:
        return None
    states = read(replies)
    near = settings.on_policy.near * settings.on_policy.threshold
    hard = states.rows(hard_positions(draft, states, near=near))
    return hard if len(hard) else None


def _require_trainable(
    training: Sequence[LabelledReply], replies: Sequence[LabelledReply], categories: Sequence[str]
) -> None:
    for name in sorted(frozenset().union(*(reply.categories for reply in replies)) - set(categories)):
        raise UnknownNameError("harm category", name, categories)
    require_both_kinds(training, where=f"the first {len(training)} of {len(replies)} replies, those to train on,")


def _require_one_vocabulary(edited: PreTrainedModel, harmful: PreTrainedModel | None) -> None:
    if harmful is not None and _vocabulary_size(harmful) != _vocabulary_size(edited):
        raise InputError(
            f"the harmful model should have the vocabulary of the edited one, {_vocabulary_size(edited)} rows of the "
            f"output embedding, found {_vocabulary_size(harmful)}: give a harmful copy of the same base"
        )


def _vocabulary_size(model: PreTrainedModel) -> int:
    return len(model.get_output_embeddings().weight)  # type: ignore[no-untyped-call]
