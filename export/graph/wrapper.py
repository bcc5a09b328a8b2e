"""The modules that are traced: a backbone, with the rule if steered, with tensors as only inputs and outputs."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from prosocial.core.errors import InputError
from prosocial.steering.backbone import Backbone, rope_parameters
from prosocial.steering.lexicographic import Controls
from prosocial.steering.steered_model import SteeredModel

from ..bundle_files.precision import Profile
from .attention import GraphCache, group_query, tracing
from .reach import Rehearsal
from .rotary import RotaryTables, turns_alike

Past = list[tuple[Tensor, Tensor]]
N_REHEARSED = 5  # tokens of the pass that records the window and the rotation of each layer
CACHED_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}


class CachedBackbone(nn.Module):
    """The backbone with its key/value cache as plain tensors.

    Attributes:
        n_layers: number of layers in the cache.
        n_kv_heads: number of key/value heads.
        head_size: size of a head.
        windows: sliding window by layer, -1 for none (profile `ort` only).
        rotary: tables for the attention operator to apply rotary embeddings; None if the model applies them itself.

    Raises:
        InputError: the profile does not support the model's cache or attention.
    """

    def __init__(self, backbone: Backbone, profile: Profile) -> None:
        super().__init__()
        self.backbone, self.profile = backbone, profile
        self.n_layers, self.n_kv_heads, self.head_size = _cache_shape(backbone)
        self.windows: dict[int, int] = {}
        self.rotary: RotaryTables | None = None
        if profile == "ort":
            rehearsal = _rehearse(backbone, self.n_layers)
            self.windows, self.rotary = rehearsal.windows, _rotary_tables(backbone, rehearsal)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, past_key_values: Past
    ) -> tuple[Tensor, Past]:
        """Return the last hidden states [B, S, H] and the extended cache."""
        if self.profile == "portable":
            cache = DynamicCache(past_key_values)
            hidden = self.backbone.hidden(
                input_ids, attention_mask=attention_mask, position_ids=position_ids, past_key_values=cache
            )
            return hidden, layers_of(cache)
        stand_in = GraphCache(past_key_values, attention_mask, self.windows, self.rotary)
        with tracing(stand_in), self.rotary.held_back() if self.rotary is not None else nullcontext():
            hidden = self.backbone.hidden(
                input_ids, attention_mask=attention_mask, position_ids=position_ids, past_key_values=stand_in
            )
        # The operator counts positions from the left, so that all outputs of a left-padded row would be wrong.
        is_padded_left = attention_mask[:, :1, None] == 0
        return torch.where(is_padded_left, torch.nan, hidden), stand_in.present


class PlainGraph(nn.Module):
    """The (edited) model without the rule, with the outputs `logits` and the cache."""

    outputs = ("logits",)

    def __init__(self, backbone: Backbone, profile: Profile) -> None:
        super().__init__()
        self.body = CachedBackbone(backbone, profile)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        past_key_values: Past,
        kept_positions: Tensor,
    ) -> tuple[Tensor, Past]:
        """Return the model's logits [B, P, V] at `kept_positions` [P], and the extended cache."""
        hidden, present = self.body(input_ids, attention_mask, position_ids, past_key_values)
        return self.body.backbone.logits(hidden.index_select(1, kept_positions)), present


class SteeredGraph(nn.Module):
    """The steered model, with the outputs `logits`, `risk`, `safe_set_size` and the cache."""

    outputs = ("logits", "risk", "safe_set_size")

    def __init__(self, steered: SteeredModel, profile: Profile) -> None:
        super().__init__()
        self.body = CachedBackbone(steered.backbone, profile)
        self.steered = steered

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        past_key_values: Past,
        kept_positions: Tensor,
        preference: Tensor,
        allowed: Tensor,
        harm_threshold: Tensor,
        reward_scale: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Past]:
        """Return logits [B, P, V], risk [B, P, C] and safe_set_size [B, P] at `kept_positions`, and the cache."""
        hidden, present = self.body(input_ids, attention_mask, position_ids, past_key_values)
        hidden = hidden.index_select(1, kept_positions)
        # Adding zeros [B] broadcasts a control with a leading axis of 1 to the batch size at run time.
        zeros = torch.zeros_like(input_ids[:, 0], dtype=hidden.dtype)
        controls = Controls(
            preference + zeros[:, None], allowed + zeros[:, None], harm_threshold + zeros, reward_scale + zeros
        )
        return *self.steered.rule(self.body.backbone.logits(hidden), hidden, controls), present


def _cache_shape(backbone: Backbone) -> tuple[int, int, int]:
    """Return the number of layers and of key/value heads, and the head size, from the cache of one short pass."""
    name, cache = type(backbone.model).__name__, DynamicCache()
    text = backbone.model.config.get_text_config()
    others = set(getattr(text, "layer_types", None) or ()) - CACHED_LAYERS
    if others:
        raise InputError(f"every layer of {name} should cache keys and values, found {sorted(others)}: not supported")
    if any(rope.get("rope_type") == "dynamic" for rope in rope_parameters(text)):
        raise InputError(f"{name} should have constant rotary frequencies, found rope_type 'dynamic': not supported")
    with torch.no_grad():
        backbone.hidden(torch.zeros(1, 2, dtype=torch.int64, device=backbone.device), past_key_values=cache)
    layers = layers_of(cache)
    shapes = {tuple(part.shape) for layer in layers for part in layer}
    if not shapes:
        raise InputError(
            f"{name} should extend transformers' cache of keys and values, it leaves it empty: not supported"
        )
    if len(shapes) != 1:
        raise InputError(
            f"every layer of {name} should cache keys and values of one shape, found {sorted(shapes)}: not supported"
        )
    _, n_heads, _, size = shapes.pop()
    return len(layers), n_heads, size


def _rehearse(backbone: Backbone, n_layers: int) -> Rehearsal:
    """Run a short pass and return the windows and heads of all layers."""
    name = type(backbone.model).__name__
    with group_query(backbone.model):
        try:
            rehearsal = _short_pass(backbone)
        except InputError as error:
            raise InputError(f"{name} does not fit profile 'ort', {error}: use --profile portable") from error
        except (TypeError, AttributeError) as error:  # the model used the mask placeholder as a tensor
            raise InputError(
                f"{name} does not fit profile 'ort', a layer reads its attention mask: use --profile portable"
            ) from error
    if len(rehearsal.windows) > n_layers:
        raise InputError(
            f"every layer of {name} should cache keys and values of its own for profile 'ort', "
            f"found {n_layers} caches for {len(rehearsal.windows)} layers: use --profile portable"
        )
    if sorted(rehearsal.windows) != list(range(n_layers)):
        raise InputError(
            f"all {n_layers} layers of {name} should use transformers' attention interface, "
            f"found only layers {sorted(rehearsal.windows)}: use --profile portable"
        )
    return rehearsal


@torch.no_grad()
def _short_pass(backbone: Backbone, rotary: RotaryTables | None = None) -> Rehearsal:
    rehearsal = Rehearsal(rotary)
    with tracing(rehearsal):
        ids = torch.arange(N_REHEARSED, device=backbone.device)[None]
        backbone.hidden(ids, attention_mask=torch.ones_like(ids), past_key_values=DynamicCache())
    return rehearsal


def _rotary_tables(backbone: Backbone, rehearsal: Rehearsal) -> RotaryTables | None:
    """Return the rotary tables if the operator can rotate heads exactly as the model does, else None.

    None also if the context has no limit, since the tables would have no end.
    """
    if backbone.context_length is None:
        return None
    tables = RotaryTables(backbone.model.base_model, backbone.context_length)
    try:
        with group_query(backbone.model), tables.held_back():
            raw = _short_pass(backbone, tables)
    except (TypeError, AttributeError, ValueError, LookupError, RuntimeError):  # a placeholder was used as a tensor
        return None
    return tables if turns_alike(rehearsal.heads, raw.heads, raw.tables) else None


def layers_of(cache: DynamicCache) -> Past:
    """Return the cached keys and values of each layer.

    Raises:
        InputError: a layer caches something else (linear attention, state space models).
    """
    layers: Past = []
    for layer in cache.layers:
        keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
        if keys is None or values is None:
            raise InputError(f"every layer should cache keys and values, found {type(layer).__name__}: not supported")
        layers.append((keys, values))
    return layers
