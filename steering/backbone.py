"""A transformers causal language model split into two steps: hidden states, then next-token logits."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from prosocial.core.errors import InputError

AGREEMENT = 1e-4  # largest difference from the model's own logits, relative to its largest logit


class Backbone(nn.Module):
    """A causal language model split at its last hidden state.

    Any architecture works whose logits are the output embedding of the last hidden state, optionally scaled or
    soft-capped; the constructor checks this with one short forward pass.

    Attributes:
        model: the whole model.
        output_weight: [V, H], the weight of the output embedding.
        context_length: maximum number of tokens in a sequence; None if there is no limit.

    Raises:
        InputError: the model has no separate body or no linear output embedding, its logits are not finite, or the two
            steps do not reproduce its logits (the architecture has an unsupported step after the last hidden state).
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.model.train(False)
        embedding = _output_embedding(model)
        if model.base_model is model or not isinstance(embedding, nn.Linear):
            found = f"base_model {type(model.base_model).__name__} and output embedding {type(embedding).__name__}"
            advice = "load it with AutoModelForCausalLM" if embedding is None else "this architecture is not supported"
            raise InputError(
                f"{type(model).__name__} should be a causal language model with a body of its own (base_model) and a "
                f"linear output embedding, found {found}: {advice}"
            )
        text = model.config.get_text_config()
        self.soft_cap: float = float(getattr(text, "final_logit_softcapping", None) or 0.0)
        self.logit_scale: float = float(getattr(text, "logit_scale", None) or 1.0) / float(
            getattr(text, "logits_scaling", None) or 1.0
        )
        self.context_length = _context_length(text)
        self._check_split()

    @property
    def output_weight(self) -> Tensor:
        """The weight of the output embedding [V, H]; a copy if accelerate keeps it elsewhere between passes."""
        embedding = _output_embedding(self.model)
        if not embedding.weight.is_meta:
            weight: Tensor = embedding.weight
            return weight
        from accelerate.utils import align_module_device

        with align_module_device(embedding):
            copy: Tensor = embedding.weight.detach().clone()
            return copy

    @property
    def device(self) -> torch.device:
        """Where token ids are taken, and hidden states and logits are given: the device of the output embedding."""
        embedding = _output_embedding(self.model)
        device: torch.device = embedding.weight.device
        return torch.device(embedding._hf_hook.execution_device) if device.type == "meta" else device

    def hidden(
        self,
        input_ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: object = None,
    ) -> Tensor:
        """Return the last hidden states [B, S, H], float32, after the final norm; extends `past_key_values`."""
        body = self.model.base_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=past_key_values is not None,
        )
        states: Tensor = body.last_hidden_state.float()
        return states if states.device == self.device else states.to(self.device)  # where a model is spread

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the model's logits z0 [B, S, V], float32, from hidden states [B, S, H]; soft-cap and scale applied."""
        embedding = _output_embedding(self.model)
        z0: Tensor = embedding(hidden.to(embedding.weight.dtype)).float()
        if self.logit_scale != 1.0:
            z0 = z0 * self.logit_scale
        return self.soft_cap * torch.tanh(z0 / self.soft_cap) if self.soft_cap else z0

    @torch.no_grad()
    def _check_split(self) -> None:
        ids = (torch.arange(8, device=self.device)[None] * 7 + 3) % self.output_weight.shape[0]
        ours, own = self.logits(self.hidden(ids)), self.model(input_ids=ids, use_cache=False).logits.to(self.device)
        difference = float((ours - own).abs().max())
        if not torch.isfinite(own).all():
            raise InputError(
                f"{type(self.model).__name__} should give finite logits, found others: {_broken_weights(self.model)}"
            )
        rounding = max(AGREEMENT, torch.finfo(self.output_weight.dtype).eps)
        if not difference <= rounding * max(1.0, float(own.abs().max())):
            raise InputError(
                f"{type(self.model).__name__} should give the same logits from its last hidden state as in its own "
                f"forward pass, found a largest difference of {difference:.3g}: this architecture is not supported"
            )


def _broken_weights(model: PreTrainedModel) -> str:
    broken = [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    return f"NaN or infinity in {', '.join(broken[:3])}" if broken else "its weights are finite, activations overflow"


def rope_parameters(text: PreTrainedConfig) -> list[dict[str, Any]]:
    """Return the rotary embedding parameters of a text config: one set, or one per layer type."""
    given = getattr(text, "rope_parameters", None) or {}
    nested = [rope for rope in given.values() if isinstance(rope, dict)]
    return nested or [given]


def _context_length(text: PreTrainedConfig) -> int | None:
    """Return up to how many positions the cached keys stay valid; None if there is no limit.

    LongRoPE rotates all keys of a sequence differently once it exceeds the original length: a key/value cache would
    have to be recomputed from the first token.
    """
    limits = [
        int(rope["original_max_position_embeddings"])
        for rope in rope_parameters(text)
        if rope.get("rope_type") == "longrope"
    ]
    longest = getattr(text, "max_position_embeddings", None)
    return min([*limits, *([] if longest is None else [longest])], default=None)


def _output_embedding(model: PreTrainedModel) -> Any:
    return model.get_output_embeddings()  # type: ignore[no-untyped-call]  # untyped in transformers
