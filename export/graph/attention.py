"""Attention as ONNX Runtime's GroupQueryAttention, inserted through transformers' AttentionInterface.

The operator appends to the key/value cache, applies a causal mask, and supports sliding windows and soft-caps. It also
applies rotary embeddings if `rotary` has shown that it rotates heads as the model does; norms stay in the model. The
registered mask function builds no mask, it only reads each layer's window.

Source: com.microsoft.GroupQueryAttention in ONNX Runtime's ContribOperators.md.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from prosocial.core.errors import InputError

from .reach import MaskFunction, Rehearsal
from .rotary import RotaryTables

NAME = "prosocial_group_query"
KNOWN_EXTRAS = {"dropout", "is_causal", "position_ids", "output_attentions", "use_cache", "cache_position", "head_mask"}


class GraphCache:
    """Replaces the transformers cache while tracing; it leaves appending keys and values to the operator.

    Args:
        past: keys and values of each layer, [B, kv heads, past, head size] each.
        attention_mask: [B, past + S], 1 for tokens, 0 for padding on the right.
        windows: sliding window by layer, -1 for none.
        rotary: tables for the operator's rotary embeddings; None if the model applies them.
    """

    is_compileable = False
    is_sliding: tuple[bool, ...] = ()
    layers: tuple[object, ...] = ()

    def __init__(
        self,
        past: list[tuple[Tensor, Tensor]],
        attention_mask: Tensor,
        windows: Mapping[int, int],
        rotary: RotaryTables | None,
    ) -> None:
        self.past, self.windows, self.rotary = past, windows, rotary
        self.present: list[tuple[Tensor, Tensor]] = list(past)
        self.last_index = (attention_mask.sum(1) - 1).to(torch.int32)  # [B]
        self.total = torch.full((), attention_mask.shape[1], dtype=torch.int32)

    def update(self, key: Tensor, value: Tensor, layer_index: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Return the new keys and values unchanged."""
        return key, value

    def get_seq_length(self, layer_index: int = 0) -> Any:
        """Return the number of past tokens."""
        return self.past[layer_index][0].shape[2]

    def get_query_offset(self, layer_index: int = 0) -> Any:
        """Return the number of past tokens; newer versions of transformers call this method."""
        return self.get_seq_length(layer_index)

    def get_mask_sizes(self, query_length: int, layer_index: int = 0) -> tuple[Any, int]:
        """Return the number of keys and their offset."""
        return self.get_seq_length(layer_index) + query_length, 0

    def mask(self, mask_function: MaskFunction) -> None:
        """Return None: the operator needs no mask."""

    def attend(
        self, layer_index: int, heads: Sequence[Tensor], mask: object, *, scale: float, soft_cap: float
    ) -> Tensor:
        """Emit the operator and return its output [B, S, h, d].

        Args:
            layer_index: index of the layer.
            heads: query [B, h, S, d], new keys and values [B, kv, S, d].
            mask: must be None.
            scale: factor of the attention scores.
            soft_cap: soft-cap of the attention scores, 0 for none.

        Raises:
            InputError: there is a mask, which the operator would ignore.
        """
        if mask is not None:
            raise InputError("its attention should have no mask while it is traced, found one")
        query, key, value = heads
        n_rows, n_heads, n_new, head_size = query.shape
        past_key, past_value = self.past[layer_index]
        total = past_key.shape[2] + n_new
        taken = self.rotary.take() if self.rotary is not None else None
        tables = [] if taken is None else [table.to(query.dtype) for table in taken]
        output, *present = torch.onnx.ops.symbolic_multi_out(
            "com.microsoft::GroupQueryAttention",
            [*map(_flat, heads), past_key, past_value, self.last_index, self.total, *tables],
            {
                "do_rotary": int(bool(tables)),
                "num_heads": n_heads,
                "kv_num_heads": key.shape[1],
                "scale": scale,
                "local_window_size": self.windows[layer_index],
                "softcap": soft_cap,
            },
            dtypes=[query.dtype] * 3,
            shapes=[
                [n_rows, n_new, n_heads * head_size],
                [n_rows, key.shape[1], total, key.shape[3]],
                [n_rows, key.shape[1], total, value.shape[3]],
            ],
            version=1,
        )
        self.present[layer_index] = (present[0], present[1])
        return output.view(n_rows, n_new, n_heads, head_size)


_listening: list[GraphCache | Rehearsal] = []


def group_query_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: object,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **extras: Any,
) -> tuple[Tensor, None]:
    """Attention function for transformers that emits GroupQueryAttention; works only inside `tracing`.

    `sliding_window` is ignored: the window is that of the layer's mask.

    Raises:
        InputError: the model passes an argument that the operator would ignore.
    """
    unknown = sorted(name for name, given in extras.items() if given is not None and name not in KNOWN_EXTRAS)
    if unknown or not _listening:
        raise InputError(f"its attention should be plain, found {', '.join(unknown) or 'no trace under way'}")
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    layer_index = int(module.layer_idx)  # type: ignore[arg-type]  # transformers sets an int on every attention module
    heads = (query, key, value)
    return _listening[-1].attend(layer_index, heads, attention_mask, scale=scale, soft_cap=float(softcap or 0.0)), None


def group_query_mask(*, mask_function: MaskFunction, **_: object) -> object:
    """Mask function for transformers: return the listener's placeholder instead of a mask."""
    return _listening[-1].mask(mask_function) if _listening else None


AttentionInterface.register(NAME, group_query_attention)
AttentionMaskInterface.register(NAME, group_query_mask)


@contextlib.contextmanager
def group_query(model: PreTrainedModel) -> Iterator[None]:
    """Switch a model to the operator's attention inside a `with` block.

    Raises:
        InputError: the architecture does not use transformers' attention interface, or has attention sinks.
    """
    before = model.config._attn_implementation
    name = type(model).__name__
    if any("sink" in parameter for parameter, _ in model.named_parameters()):
        raise InputError(f"{name} has attention sinks, which profile 'ort' cannot express: use --profile portable")
    with contextlib.suppress(ValueError):
        model.set_attn_implementation(NAME)
    if model.config._attn_implementation != NAME:
        raise InputError(f"{name} should use transformers' attention interface, it does not: use --profile portable")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextlib.contextmanager
def tracing(listener: GraphCache | Rehearsal) -> Iterator[None]:
    """Send the attention calls inside a `with` block to `listener`."""
    _listening.append(listener)
    try:
        yield
    finally:
        _listening.pop()


def _flat(heads: Tensor) -> Tensor:
    """Reshape [B, heads, S, d] to [B, S, heads * d]."""
    return heads.transpose(1, 2).flatten(2)
