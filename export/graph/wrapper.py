"""The modules that are traced: flat tensors in, flat tensors out, around a backbone and, if steered, the rule."""

from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from prosocial.core.errors import InputError
from prosocial.steering.backbone import Backbone, rope_parameters
from prosocial.steering.lexicographic import Controls
from prosocial.steering.steered_model import SteeredModel

from .attention import GraphCache, group_query, tracing
from .reach import Rehearsal
from .rotary import RotaryTables, turns_alike

Profile = Literal["ort", "portable"]
Past = list[tuple[Tensor, Tensor]]
N_REHEARSED = 5  # tokens of the pass that asks each layer for its window and its rotation
CACHED_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}


class CachedBackbone(nn.Module):
    """The backbone with its cache as plain tensors.

    Attributes:
        n_layers, n_kv_heads, head_size: of the cache. windows: how far back each layer looks (profile `ort` only).
        rotary: tables for the operator to turn heads by; None: the model turns them itself.

    Raises:
        InputError: the model caches or attends in a way that the profile cannot express.
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
        """Return hidden states [B, S, H] and the grown cache."""
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
        # The operator counts positions from the left: of a row that is padded there nothing is right.
        is_padded_left = attention_mask[:, :1, None] == 0
        return torch.where(is_padded_left, torch.nan, hidden), stand_in.present


class PlainGraph(nn.Module):
    """The (edited) model alone: `logits` and the cache."""

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
        """Return the model's own logits [B, P, V] at `kept_positions` [P] and the grown cache."""
        hidden, present = self.body(input_ids, attention_mask, position_ids, past_key_values)
        return self.body.backbone.logits(hidden.index_select(1, kept_positions)), present


class SteeredGraph(nn.Module):
    """The steered model: `logits`, `risk`, `safe_set_size` and the cache."""

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
        """Return logits [B, P, V], risk [B, P, C], safe_set_size [B, P] at `kept_positions` and the grown cache."""
        hidden, present = self.body(input_ids, attention_mask, position_ids, past_key_values)
        hidden = hidden.index_select(1, kept_positions)
        # Adding a column of zeros [B] brings a control with a leading axis of 1 to the batch at run time.
        zeros = torch.zeros_like(input_ids[:, 0], dtype=hidden.dtype)
        controls = Controls(
            preference + zeros[:, None], allowed + zeros[:, None], harm_threshold + zeros, reward_scale + zeros
        )
        return *self.steered.rule(self.body.backbone.logits(hidden), hidden, controls), present


def _cache_shape(backbone: Backbone) -> tuple[int, int, int]:
    """Number of layers, key/value heads and head size, as one pass leaves them in the cache."""
    name, cache = type(backbone.model).__name__, DynamicCache()
    text = backbone.model.config.get_text_config()
    others = set(getattr(text, "layer_types", None) or ()) - CACHED_LAYERS
    if others:
        raise InputError(f"every layer of {name} should cache keys and values, found {sorted(others)}: not supported")
    if any(rope.get("rope_type") == "dynamic" for rope in rope_parameters(text)):
        raise InputError(f"{name} should keep its rotary frequencies, found rope_type 'dynamic': not supported")
    with torch.no_grad():
        backbone.hidden(torch.zeros(1, 2, dtype=torch.int64), past_key_values=cache)
    layers = layers_of(cache)
    shapes = {tuple(part.shape) for layer in layers for part in layer}
    if len(shapes) != 1:
        raise InputError(
            f"every layer of {name} should cache keys and values of one shape, found {sorted(shapes)}: not supported"
        )
    _, n_heads, _, size = shapes.pop()
    return len(layers), n_heads, size


def _rehearse(backbone: Backbone, n_layers: int) -> Rehearsal:
    """Return windows and heads of every layer."""
    name = type(backbone.model).__name__
    with group_query(backbone.model):
        try:
            rehearsal = _short_pass(backbone)
        except InputError as error:
            raise InputError(f"{name} does not fit profile 'ort', {error}: use --profile portable") from error
        except (TypeError, AttributeError) as error:  # what stands in for a mask was taken for a tensor
            raise InputError(
                f"{name} does not fit profile 'ort', a layer reads its mask: use --profile portable"
            ) from error
    if sorted(rehearsal.windows) != list(range(n_layers)):
        raise InputError(
            f"every one of {name}'s {n_layers} layers should attend through transformers' attention interface, "
            f"{sorted(rehearsal.windows)} did: use --profile portable"
        )
    return rehearsal


@torch.no_grad()
def _short_pass(backbone: Backbone, rotary: RotaryTables | None = None) -> Rehearsal:
    rehearsal = Rehearsal(rotary)
    with tracing(rehearsal):
        ids = torch.arange(N_REHEARSED, device=backbone.output_weight.device)[None]
        backbone.hidden(ids, attention_mask=torch.ones_like(ids), past_key_values=DynamicCache())
    return rehearsal


def _rotary_tables(backbone: Backbone, rehearsal: Rehearsal) -> RotaryTables | None:
    """Return the tables by which the operator turns heads as the model does; None: it would not, or has no limit."""
    if backbone.context_length is None:
        return None
    tables = RotaryTables(backbone.model.base_model, backbone.context_length)
    try:
        with group_query(backbone.model), tables.held_back():
            raw = _short_pass(backbone, tables)
    except (TypeError, AttributeError, ValueError, LookupError, RuntimeError):  # a stand-in was taken for a tensor
        return None
    return tables if turns_alike(rehearsal.heads, raw.heads, raw.tables) else None


def layers_of(cache: DynamicCache) -> Past:
    """Return keys and values of every layer.

    Raises:
        InputError: a layer caches something else (linear attention, state spaces).
    """
    layers: Past = []
    for layer in cache.layers:
        keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
        if keys is None or values is None:
            raise InputError(f"every layer should cache keys and values, found {type(layer).__name__}: not supported")
        layers.append((keys, values))
    return layers
