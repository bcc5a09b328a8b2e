"""The steered model in torch: the reference implementation that every exported bundle is compared with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from prosocial.core.chat import TOKENIZER_FILES, ChatTokenizer
from prosocial.core.errors import ArtefactError, FingerprintError, InputError
from prosocial.core.files import link_or_copy, new_folder, require_new
from prosocial.core.placement import REFERENCE, Placement
from prosocial.core.protocols import Message

from .backbone import Backbone
from .decoding.config import CALIBRATION_FILE, DECODING_FILE, DecodingConfig
from .decoding.controls import Steering, control_arrays
from .decoding.loop import generate
from .decoding.reply import Reply
from .decoding.streaming import ReplyStream, stream
from .gate import HarmGate
from .head import CompactHead
from .lexicographic import Ceilings, Controls, Steered, as_controls, lexicographic, reward_table
from .torch_engine import SteeredEngine

HEAD_FILES = ("head.safetensors", "head_config.json")
GATE_FILES = ("gate.safetensors", "gate_config.json")


class SteeredOutput(NamedTuple):
    """The outputs of one forward pass.

    Attributes:
        logits: [B, S, V], minus infinity outside the safe set.
        risk: [B, S, C] in [0, 1].
        safe_set_size: [B, S] int64.
        past_key_values: the key/value cache, S positions longer.
    """

    logits: Tensor
    risk: Tensor
    safe_set_size: Tensor
    past_key_values: DynamicCache


class SteeredModel(nn.Module):
    """A causal language model, the compact head, the gate and the decoding config as one module.

    Args:
        model: the (edited) model; any architecture that `Backbone` supports.
        head: the compact head trained for this model; None for no shift.
        gate: the harm gate trained for this model; with None every plausible token is safe.
        config: the decoding config; its attributes and categories must be those of head and gate.
        end_ids: ids of the tokens exempt from the gate; default: the end tokens of the model's generation config.

    Raises:
        InputError: names or sizes of model, head, gate and config differ, or an end token is not in the vocabulary.
    """

    end_index: Tensor
    table: Tensor | None
    allowed_ceiling: Tensor

    def __init__(
        self,
        model: PreTrainedModel,
        head: CompactHead | None,
        gate: HarmGate | None,
        config: DecodingConfig,
        *,
        end_ids: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = Backbone(model)
        weight, device = self.backbone.output_weight, self.backbone.device
        self.head = None if head is None else head.to(device)
        self.gate = None if gate is None else gate.to(device)
        self.config = config
        self.end_ids = tuple(_generation_end_ids(model) if end_ids is None else end_ids)
        _require_fit(self, weight)
        self.register_buffer("end_index", torch.tensor(self.end_ids, device=device), persistent=False)
        self.register_buffer("table", None if head is None else reward_table(head, weight), persistent=False)
        mask = torch.tensor(config.ceiling_mask(), device=device)
        self.register_buffer("allowed_ceiling", mask, persistent=False)
        self.eval()

    @classmethod
    def open(cls, folder: Path | str, placement: Placement = REFERENCE) -> "SteeredModel":
        """Load a steered folder (checkpoint, head, gate and `decoding.json`) in evaluation mode.

        Args:
            folder: the steered folder.
            placement: where the model lies; only in float32 does it compute as the exported graph. Head and gate are
                float32 in each case.

        Raises:
            ArtefactError: a file is missing or broken.
            FingerprintError: the head or the gate was trained for another checkpoint.
        """
        from prosocial.editing.checkpoints import load_model

        folder = Path(folder)
        config = DecodingConfig.read(folder)
        head, gate = _fitting_parts(folder, folder, folder)
        tokenizer = ChatTokenizer(folder)
        config.check_template(tokenizer.template_digest, source=str(folder))
        model = load_model(folder, dtype=placement.torch_dtype, device=placement.device)
        return cls(model, head, gate, config, end_ids=tokenizer.end_ids)

    @property
    def ceilings(self) -> Ceilings:
        """The constants of the rule, from the decoding config."""
        config = self.config
        return Ceilings(
            self.allowed_ceiling, config.threshold_ceiling, self.end_index, config.plausible_k, 1.0 / config.beta
        )

    def require_gate(self) -> HarmGate:
        """Return the gate.

        Raises:
            InputError: the model has no head or no gate, as when it only samples training data.
        """
        if self.head is None or self.gate is None:
            missing = " and ".join(name for name in ("head", "gate") if getattr(self, name) is None)
            raise InputError(
                f"a steered model should have a head and a gate, found no {missing}: train it, or export with --plain"
            )
        return self.gate

    def default_controls(self) -> Controls:
        """Return the default controls of the decoding config, each with a leading axis of 1."""
        return as_controls(control_arrays(self.config, [Steering()]), self.end_index.device)

    def rule(self, z0: Tensor, hidden: Tensor, controls: Controls) -> Steered:
        """Apply the lexicographic rule to the model's logits z0 [B, S, V] and hidden states [B, S, H]."""
        return lexicographic(
            z0, hidden, controls, head=self.head, gate=self.gate, table=self.table, ceilings=self.ceilings
        )

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: DynamicCache | None = None,
        preference: Tensor | None = None,
        allowed: Tensor | None = None,
        harm_threshold: Tensor | None = None,
        reward_scale: Tensor | None = None,
    ) -> SteeredOutput:
        """Run the model and apply the rule at every position of input_ids [B, S].

        A control left at None takes the default of the decoding config.

        Args:
            input_ids: [B, S], ids of the new tokens.
            attention_mask: [B, past + S]; None for no padding.
            position_ids: [B, S]; None to count on from the cache.
            past_key_values: key/value cache, extended in place; None for an empty one.
            preference: [B|1, k], weights of the attributes on the simplex.
            allowed: [B|1, C], 1 where the harm category is allowed, else 0.
            harm_threshold: [B|1], tau in [0, 1].
            reward_scale: [B|1], s in [0, 100].
        """
        default = self.default_controls()
        given = (preference, allowed, harm_threshold, reward_scale)
        controls = Controls(*(own if value is None else value for value, own in zip(given, default, strict=True)))
        cache = DynamicCache() if past_key_values is None else past_key_values
        hidden = self.backbone.hidden(
            input_ids, attention_mask=attention_mask, position_ids=position_ids, past_key_values=cache
        )
        return SteeredOutput(*self.rule(self.backbone.logits(hidden), hidden, controls), cache)

    def generate(
        self, conversations: Sequence[Sequence[Message]], tokenizer: ChatTokenizer, **options: Any
    ) -> list[Reply]:
        """Reply to conversations; `options` are those of `prosocial.steering.decoding.loop.generate`."""
        return generate(SteeredEngine(self), tokenizer, conversations, **options)

    def stream(self, conversation: Sequence[Message], tokenizer: ChatTokenizer, **options: Any) -> ReplyStream:
        """Stream one reply; `options` are those of `prosocial.steering.decoding.streaming.stream`."""
        return stream(SteeredEngine(self), tokenizer, conversation, **options)


class ThresholdRecord(Protocol):
    """A chosen threshold with its record, such as `prosocial.evaluation.gate.ThresholdChoice`."""

    @property
    def harm_threshold(self) -> float:
        """The threshold."""
        ...

    @property
    def threshold_ceiling(self) -> float:
        """The highest threshold that a request may set."""
        ...

    def write(self, folder: Path) -> None:
        """Write `calibration.json` into a folder."""
        ...


def assemble_steered(
    *,
    checkpoint: Path | str,
    head: Path | str,
    gate: Path | str,
    config: DecodingConfig,
    out: Path | str,
    threshold: ThresholdRecord | None = None,
) -> None:
    """Write a steered folder: the checkpoint's files as hard links, head and gate beside them, and `decoding.json`.

    Args:
        checkpoint: the edited model; of a steered folder its own head, gate and config are left out.
        head, gate: folders of the head and the gate.
        config: names and numbers of `decoding.json`.
        out: the new folder.
        threshold: replaces the threshold and ceiling of `config`, and is written beside it; None: those of `config`.

    Raises:
        FingerprintError: the head or the gate belongs to another checkpoint.
        InputError: names of head, gate and config differ, a threshold of `config` is above the ceiling, or `out` is in
            use.
    """
    checkpoint, head, gate, out = Path(checkpoint), Path(head), Path(gate), Path(out)
    require_new(out)
    if threshold is not None:
        numbers = {name: getattr(threshold, name) for name in ("harm_threshold", "threshold_ceiling")}
        given = config.model_dump(by_alias=True) | numbers
        config = DecodingConfig.parse(given, source="the decoding config with the chosen threshold")
    parts = _fitting_parts(checkpoint, head, gate)
    _require_names(*parts, config)
    ours = {*HEAD_FILES, *GATE_FILES, DECODING_FILE, CALIBRATION_FILE}
    with new_folder(out) as folder:
        for path in sorted(checkpoint.iterdir()):
            if path.is_file() and path.name not in ours and not path.name.startswith("."):
                link_or_copy(path, folder / path.name)
        for source, names in ((head, HEAD_FILES), (gate, GATE_FILES)):
            for name in names:
                link_or_copy(source / name, folder / name)
        if not (folder / TOKENIZER_FILES[0]).is_file():
            raise ArtefactError(
                f"{checkpoint} should hold {TOKENIZER_FILES[0]}: there is none; save the tokenizer there"
            )
        digest = ChatTokenizer(folder).template_digest
        config.check_template(digest, source=str(checkpoint))
        config.model_copy(update={"chat_template_sha256": digest}).write(folder)
        if threshold is not None:
            threshold.write(folder)


def _fitting_parts(checkpoint: Path, head: Path, gate: Path) -> tuple[CompactHead, HarmGate]:
    from prosocial.editing.checkpoints import Checkpoint

    parts = CompactHead.load(head), HarmGate.load(gate)
    actual = Checkpoint.open(checkpoint).fingerprint()
    for part, folder, kind in ((parts[0], head, "head"), (parts[1], gate, "gate")):
        if part.checkpoint_fingerprint != actual:
            raise FingerprintError(
                f"the {kind} in {folder}", str(part.checkpoint_fingerprint), f"the checkpoint {checkpoint}", actual
            )
    return parts


def _require_names(head: CompactHead | None, gate: HarmGate | None, config: DecodingConfig) -> None:
    attributes = config.attributes if head is None else list(head.attributes)
    categories = config.categories if gate is None else list(gate.categories)
    if attributes != config.attributes or categories != config.categories:
        raise InputError(
            f"the decoding config should name the head's attributes {attributes} and the gate's categories "
            f"{categories} in that order, found {config.attributes} and {config.categories}"
        )


def _require_fit(steered: SteeredModel, output_weight: Tensor) -> None:
    head, gate = steered.head, steered.gate
    _require_names(head, gate, steered.config)
    expected = tuple(output_weight.shape)
    actual = expected if gate is None else (gate.vocabulary_size, gate.hidden_size)
    hidden_size = expected[1] if head is None else head.hidden_size
    if actual != expected or hidden_size != expected[1]:
        raise InputError(
            f"gate and head should fit the output embedding {expected}, found a gate for {actual} and a head for "
            f"hidden size {hidden_size}: train them for this model"
        )
    ids = steered.end_ids
    if not ids or not all(0 <= token < expected[0] for token in ids):
        raise InputError(f"end tokens should be one or more ids below {expected[0]}, found {ids}: pass end_ids")


def _generation_end_ids(model: PreTrainedModel) -> tuple[int, ...]:
    config = model.generation_config
    listed = None if config is None else config.eos_token_id
    return (listed,) if isinstance(listed, int) else tuple(listed or ())
