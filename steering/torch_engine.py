"""Torch engines for the decoding loop: a steered model, or an ordinary one as baseline."""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache, PreTrainedModel

from .backbone import Backbone
from .decoding.config import DecodingConfig
from .decoding.controls import ControlArrays
from .decoding.engine import PAD, Decision
from .decoding.prefix import shared_prefix
from .lexicographic import Controls, Steered, as_controls


class Rule(Protocol):
    """The part of a steered model that an engine uses."""

    backbone: Backbone
    config: DecodingConfig

    def default_controls(self) -> Controls:
        """Return the default controls."""
        ...

    def rule(self, z0: torch.Tensor, hidden: torch.Tensor, controls: Controls) -> Steered:
        """Apply the rule to logits z0 [B, S, V] and hidden states [B, S, H]."""
        ...


class SteeredEngine:
    """An engine that runs a steered model."""

    def __init__(self, steered: Rule) -> None:
        self.steered = steered
        self.backbone = steered.backbone
        self.config: DecodingConfig | None = steered.config
        self.context_length, self.vocabulary_size = self.backbone.context_length, len(self.backbone.output_weight)

    def prefill(self, ids: NDArray[np.int64], controls: ControlArrays | None, *, capacity: int) -> "TorchStream":
        """Run prompts [B, S]; torch's key/value cache grows as needed, `capacity` is not used."""
        device = self.backbone.device
        tensors = self.steered.default_controls() if controls is None else as_controls(controls, device)
        return TorchStream(self.backbone, self.steered, tensors, torch.from_numpy(ids).to(device))


class PlainEngine:
    """An engine that returns the logits of an ordinary causal language model (base or edited), without the rule."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.backbone = Backbone(model)
        self.config: DecodingConfig | None = None
        self.context_length, self.vocabulary_size = self.backbone.context_length, len(self.backbone.output_weight)

    def prefill(self, ids: NDArray[np.int64], controls: ControlArrays | None, *, capacity: int) -> "TorchStream":
        """Run prompts [B, S]; `controls` and `capacity` are not used."""
        return TorchStream(self.backbone, None, None, torch.from_numpy(ids).to(self.backbone.device))


class TorchStream:
    """A batch of sequences with its key/value cache in torch; only the last position of each pass gets a decision."""

    def __init__(self, backbone: Backbone, steered: Rule | None, controls: Controls | None, ids: torch.Tensor) -> None:
        self._backbone, self._steered, self._controls = backbone, steered, controls
        self._cache = DynamicCache()
        self._length = 0
        self._mask = ids != PAD if bool((ids == PAD).any()) else None  # [B, S], False at padding
        n_shared = shared_prefix(ids.cpu().numpy())
        if n_shared:
            self._read(ids[:1, :n_shared])
            self._cache.batch_repeat_interleave(len(ids))
        self.decision = self._decide(ids[:, n_shared:])

    def step(self, tokens: NDArray[np.int64]) -> None:
        """Append one token [B] per row and compute the next decision."""
        if self._mask is not None:
            self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=True)
        self.decision = self._decide(torch.from_numpy(tokens)[:, None].to(self._backbone.device))

    def keep(self, rows: NDArray[np.intp]) -> None:
        """Keep only these rows, in this order."""
        at = torch.from_numpy(rows)  # on the CPU, since the layers of a model that is spread lie on several devices
        self._cache.batch_select_indices(at)
        if self._mask is not None:
            self._mask = self._mask[at]
        if self._controls is not None:
            self._controls = Controls(*(value if len(value) == 1 else value[at] for value in self._controls))

    @torch.inference_mode()
    def _read(self, ids: torch.Tensor) -> torch.Tensor:
        """Append tokens [B, S] and return the last position's hidden states [B, 1, H]."""
        n_rows, n_new = ids.shape
        if self._mask is None:
            positions = torch.arange(self._length, self._length + n_new, device=ids.device)[None].expand(n_rows, -1)
        else:
            positions = (self._mask.cumsum(-1) - 1).clamp(min=0)[:, -n_new:]
        hidden = self._backbone.hidden(
            ids.clamp(min=0), attention_mask=self._mask, position_ids=positions, past_key_values=self._cache
        )[:, -1:]
        self._length += n_new
        return hidden

    @torch.inference_mode()
    def _decide(self, ids: torch.Tensor) -> Decision:
        n_rows, hidden = len(ids), self._read(ids)
        z0 = self._backbone.logits(hidden).float()
        if self._steered is None or self._controls is None:
            decided = Steered(z0, z0.new_zeros(n_rows, 1, 0), torch.full((n_rows, 1), z0.shape[-1]))
        else:
            decided = self._steered.rule(z0, hidden.float(), self._controls)
        logits, risk, size = (value[:, 0].cpu().numpy() for value in decided)
        return Decision(logits, risk, size)
