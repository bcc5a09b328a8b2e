"""Attention as ONNX Runtime's GroupQueryAttention, put in place through transformers' AttentionInterface.

The operator appends to the key/value cache, is causal by itself and knows sliding windows and soft-caps; rotary
embeddings and norms stay the model's own. Contract: com.microsoft.GroupQueryAttention in ONNX Runtime's
ContribOperators.md. No mask function is registered under this name, so that transformers builds no mask.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from prosocial.editing.errors import InputError

NAME = "prosocial_group_query"
KNOWN_EXTRAS = {"dropout", "is_causal", "position_ids", "output_attentions", "use_cache", "cache_position", "head_mask"}


class GraphCache:
    """Stands in for a transformers cache while tracing: keys and values pass through, the operator appends them.

    Args:
        past: (key, value) of each layer, [B, kv heads, past, head size].
        attention_mask: [B, past + S], ones where there is a token (right padding only).
    """

    is_compileable = False
    is_sliding: tuple[bool, ...] = ()
    layers: tuple[object, ...] = ()

    def __init__(self, past: list[tuple[Tensor, Tensor]], attention_mask: Tensor) -> None:
        self.past = past
        self.present: list[tuple[Tensor, Tensor]] = list(past)
        self.last_index = (attention_mask.sum(1) - 1).to(torch.int32)  # [B]
        self.total = torch.full((), attention_mask.shape[1], dtype=torch.int32)
        self.seen: set[int] = set()

    def update(self, key: Tensor, value: Tensor, layer_index: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Hand the new keys and values on."""
        return key, value

    def get_seq_length(self, layer_index: int = 0) -> Any:
        """Number of past tokens."""
        return self.past[layer_index][0].shape[2]

    def get_query_offset(self, layer_index: int = 0) -> Any:
        """Number of past tokens, as newer transformers asks for it."""
        return self.get_seq_length(layer_index)

    def get_mask_sizes(self, query_length: int, layer_index: int = 0) -> tuple[Any, int]:
        """Length and offset of the keys."""
        return self.get_seq_length(layer_index) + query_length, 0

    def attend(
        self, layer_index: int, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int, soft_cap: float
    ) -> Tensor:
        """Emit the operator for query [B, h, S, d] and new keys and values [B, kv, S, d]; return [B, S, h, d]."""
        n_rows, n_heads, n_new, head_size = query.shape
        past_key, past_value = self.past[layer_index]
        total = past_key.shape[2] + n_new
        output, *present = torch.onnx.ops.symbolic_multi_out(
            "com.microsoft::GroupQueryAttention",
            [_flat(query), _flat(key), _flat(value), past_key, past_value, self.last_index, self.total],
            {
                "num_heads": n_heads,
                "kv_num_heads": key.shape[1],
                "scale": scale,
                "local_window_size": window,
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
        self.seen.add(layer_index)
        return output.view(n_rows, n_new, n_heads, head_size)


_tracing: list[GraphCache] = []


def group_query_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **extras: Any,
) -> tuple[Tensor, None]:
    """Attend as GroupQueryAttention does; only while a graph is traced.

    Raises:
        InputError: the model hands over something that the operator would silently ignore.
    """
    unknown = sorted(name for name, given in extras.items() if given is not None and name not in KNOWN_EXTRAS)
    if unknown or attention_mask is not None or not _tracing:
        found = ", ".join(unknown) or ("a mask" if attention_mask is not None else "no trace under way")
        raise InputError(f"profile 'ort' should get plain causal attention, found {found}: use --profile portable")
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    output = _tracing[-1].attend(
        int(module.layer_idx),  # type: ignore[arg-type]  # transformers sets an int on every attention module
        query,
        key,
        value,
        scale=scale,
        window=int(sliding_window or -1),
        soft_cap=float(softcap or 0.0),
    )
    return output, None


AttentionInterface.register(NAME, group_query_attention)


@contextlib.contextmanager
def group_query(model: PreTrainedModel) -> Iterator[None]:
    """Let the model attend through the operator inside the block, and as before after it.

    Raises:
        InputError: the architecture does not go through transformers' attention interface, or it has attention sinks.
    """
    before = model.config._attn_implementation
    if any("sink" in name for name, _ in model.named_parameters()):
        raise InputError(
            f"{type(model).__name__} has attention sinks, which profile 'ort' cannot express: use portable"
        )
    with contextlib.suppress(ValueError):
        model.set_attn_implementation(NAME)
    if model.config._attn_implementation != NAME:
        raise InputError(f"{type(model).__name__} should use transformers' attention interface: use --profile portable")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextlib.contextmanager
def tracing(cache: GraphCache) -> Iterator[None]:
    """Direct the attention calls inside the block to `cache`.

    Raises:
        InputError: a layer did not call it.
    """
    _tracing.append(cache)
    try:
        yield
    finally:
        _tracing.pop()
    if len(cache.seen) != len(cache.past):
        raise InputError(
            f"every one of {len(cache.past)} layers should attend through transformers' attention interface, "
            f"{len(cache.seen)} did: use --profile portable"
        )


def _flat(heads: Tensor) -> Tensor:
    """[B, heads, S, d] as [B, S, heads * d]."""
    return heads.transpose(1, 2).flatten(2)
