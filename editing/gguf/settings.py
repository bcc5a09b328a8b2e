"""The transformers config of a GGUF file, from the settings that it states under its architecture's name.

transformers has a mapping of its own (`gguf_file=`), which leaves out settings such as the size of heads of Qwen 3 and
the scaling of rotary embeddings; a model would then be built that computes something else.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from prosocial.core.errors import UnknownNameError

from .header import GgufHeader

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# transformers' model type of each architecture; tests hold that each gives the logits of the original.
MODEL_TYPES = {
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "llama": "llama",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3moe": "qwen3_moe",
}
SIZES = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
}
NUMBERS = {
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
REQUIRED = ("context_length", "block_count", "embedding_length", "feed_forward_length", "attention.head_count")
OPTIONAL = {"attention.sliding_window", "expert_count", "expert_used_count"}  # 0 for none
PATTERN, VALUE_SIZE = "attention.sliding_window_pattern", "attention.value_length"
ROPE_BASE, ROPE_TYPE, ROPE_FACTOR = "rope.freq_base", "rope.scaling.type", "rope.scaling.factor"
ROPE_LENGTH, ROPE_SIZE = "rope.scaling.original_context_length", "rope.dimension_count"
# What has no part in the computation, or what the rest of this file reads.
OTHERS = {
    "vocab_size", "rope.scaling.finetuned", VALUE_SIZE,
    PATTERN, ROPE_BASE, ROPE_TYPE, ROPE_FACTOR, ROPE_LENGTH, ROPE_SIZE,
}  # fmt: skip
ROPE_FACTORS = "rope_freqs.weight"  # the scaling of Llama 3.1, as a tensor
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
LOCAL_ROPE_BASE = 10_000.0  # of Gemma 3's layers with a sliding window; files do not state it
UNSTATED = {"qwen3moe": {"norm_topk_prob": True}}  # what llama.cpp computes without a setting for it
LARGEST_GEMMAS = {"gemma2": 46, "gemma3": 62}  # number of layers of those of 27B, which scale queries differently


def require_causal_lm(header: GgufHeader) -> None:
    """Check that a GGUF file holds a whole causal language model of an architecture that can be converted.

    Raises:
        ArtefactError: it is one part of several, or holds something else than a model.
        UnknownNameError: its architecture is another one.
    """
    n_parts = header.number("split.count") or 1
    if n_parts > 1:
        raise header.broken(
            "a whole model",
            f"one of {n_parts} parts: join them by `llama-gguf-split --merge FIRST_PART.gguf WHOLE.gguf`",
        )
    kind, architecture = header.text("general.type") or "model", header.text("general.architecture")
    if kind != "model":
        raise header.broken("a causal language model (general.type model)", f"{kind!r:.80}")
    if architecture not in MODEL_TYPES:
        name = f"{architecture or 'unnamed':.80} in {header.file}"
        raise UnknownNameError("architecture of a causal language model", name, MODEL_TYPES)
    if "token_embd.weight" not in header.tensors:
        raise header.broken("token embeddings (token_embd.weight)", f"{len(header.tensors)} other tensors")


def model_config(header: GgufHeader, special_ids: Mapping[str, Any]) -> tuple["PretrainedConfig", list[str]]:
    """Return the transformers config of a file, and the keys of settings that it has no place for.

    Args:
        header: the file's header.
        special_ids: what the config says of special tokens; the usual ones may not exist in this vocabulary.

    Raises:
        ArtefactError: a setting is missing, out of range, or one that transformers cannot compute with.
    """
    from transformers import AutoConfig

    from ..checkpoints.model import LOADING_ERRORS

    stated = _stated(header)
    settings: dict[str, Any] = {SIZES[key]: _size(header, key, stated[key]) for key in SIZES if key in stated}
    settings |= {NUMBERS[key]: _number(header, key, stated[key]) for key in NUMBERS if key in stated}
    settings.setdefault("head_dim", settings["hidden_size"] // settings["num_attention_heads"])
    settings.setdefault("num_key_value_heads", settings["num_attention_heads"])
    settings |= {
        "vocab_size": header.tensors["token_embd.weight"].shape[0],
        "tie_word_embeddings": "output.weight" not in header.tensors,
        **special_ids,
        **_rope(header, stated, settings),
        **_gemma(header, stated, settings),
        **UNSTATED.get(header.pairs["general.architecture"], {}),
    }
    model_type = MODEL_TYPES[header.pairs["general.architecture"]]
    try:
        usual = AutoConfig.for_model(model_type)
        config = AutoConfig.for_model(model_type, **settings)
    except (*LOADING_ERRORS, ArithmeticError) as error:
        raise header.broken("settings of one model", f"{' '.join(str(error).split()):.300}") from None
    placed = {key for key, name in (SIZES | NUMBERS).items() if hasattr(usual, name) or name == "head_dim"}
    return config, sorted(set(stated) - placed - OTHERS)


def _stated(header: GgufHeader) -> dict[str, Any]:
    """Return the settings under the architecture's name, without it."""
    prefix = f"{header.pairs['general.architecture']}."
    stated = {key.removeprefix(prefix): value for key, value in header.pairs.items() if key.startswith(prefix)}
    missing = [key for key in REQUIRED if key not in stated]
    if missing:
        raise header.broken(f"the setting {prefix}{missing[0]}", "none")
    return {key: value for key, value in stated.items() if key not in OPTIONAL or value != 0}


def _size(header: GgufHeader, key: str, value: Any) -> int:
    """Return a size that the file has tensors for, so that no model is built that it cannot fill."""
    if key in ("context_length", "attention.sliding_window"):
        limit = 2**31 - 1
    elif key == "block_count":
        limit = len(header.tensors)
    else:
        limit = max(max(tensor.shape) for tensor in header.tensors.values())
    if type(value) is not int or not 1 <= value <= limit:
        raise header.broken(f"a whole number from 1 to {limit:,} as {key}", f"{value!r:.80}")
    return value


def _number(header: GgufHeader, key: str, value: Any) -> float:
    """Return a positive number; the shortest decimal that gives the file's float32, as configs have it."""
    number = float(str(np.float32(value))) if type(value) in (int, float) else math.nan
    if not 0 < number < math.inf:
        raise header.broken(f"a positive number as {key}", f"{value!r:.80}")
    return number


def _rope(header: GgufHeader, stated: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of the rotary embedding."""
    for key in (ROPE_SIZE, VALUE_SIZE):
        if stated.get(key, settings["head_dim"]) != settings["head_dim"]:
            raise header.broken(f"heads of one size ({settings['head_dim']})", f"{stated[key]!r:.80} as {key}")
    rope = {"rope_theta": _number(header, ROPE_BASE, stated.get(ROPE_BASE, 10_000.0)), **_scaling(header, stated)}
    if ROPE_FACTORS in header.tensors:
        rope |= _llama3(header, rope["rope_theta"], settings["head_dim"])
    if header.pairs["general.architecture"] != "gemma3":
        return {"rope_parameters": rope}
    local = {"rope_type": "default", "rope_theta": LOCAL_ROPE_BASE}
    return {"rope_parameters": {"full_attention": rope, "sliding_attention": local}}


def _scaling(header: GgufHeader, stated: dict[str, Any]) -> dict[str, Any]:
    kind = stated.get(ROPE_TYPE, "none")
    unread = [key for key in stated if key.startswith("rope.scaling.") and key not in OTHERS]
    if kind == "none" and not unread:
        return {"rope_type": "default"}
    if kind not in ("linear", "yarn") or unread:
        raise header.broken(
            "rotary scaling none, linear or yarn", f"{kind!r:.80} with {', '.join(unread) or 'nothing'}"
        )
    scaling: dict[str, Any] = {"rope_type": kind, "factor": _number(header, ROPE_FACTOR, stated.get(ROPE_FACTOR))}
    if kind == "yarn":
        scaling["original_max_position_embeddings"] = int(_number(header, ROPE_LENGTH, stated.get(ROPE_LENGTH)))
    return scaling


def _llama3(header: GgufHeader, base: float, head_dim: int) -> dict[str, Any]:
    """Return Llama 3.1's scaling, of which a file has the resulting factors only: one factor for each frequency."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    from .values import dequantised

    factors = dequantised(header, header.tensors[ROPE_FACTORS]).reshape(-1)
    factor = float(factors.max())
    scaling: dict[str, Any] = LLAMA3 | {"rope_type": "llama3", "rope_theta": base, "factor": factor}
    if factors.shape == (head_dim // 2,) and factors.min() >= 1 and factor < math.inf:
        config = LlamaConfig(head_dim=head_dim, rope_parameters=scaling, max_position_embeddings=131_072)
        scaled = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0].numpy()
        plain = 1.0 / base ** (np.arange(0, head_dim, 2, dtype=np.float32) / head_dim)
        if np.allclose(scaled, plain / factors, rtol=1e-4):
            return scaling
    raise header.broken(f"{ROPE_FACTORS} as Llama 3.1 scales frequencies", f"other factors up to {factors.max():g}")


def _gemma(header: GgufHeader, stated: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Return the scale of queries, which llama.cpp derives from the size (`llama-model.cpp`), and each layer's kind."""
    architecture, n_layers = header.pairs["general.architecture"], settings["num_hidden_layers"]
    if architecture not in LARGEST_GEMMAS:
        return {}
    is_largest = n_layers == LARGEST_GEMMAS[architecture]
    per_head = settings["hidden_size"] // settings["num_attention_heads"]
    found: dict[str, Any] = {"query_pre_attn_scalar": per_head if is_largest else settings["head_dim"]}
    if PATTERN in stated:
        found["layer_types"] = _layer_types(header, stated[PATTERN], n_layers)
    return found


def _layer_types(header: GgufHeader, pattern: Any, n_layers: int) -> list[str]:
    """Return the kind of each layer, from a bool for each or from the distance between layers with full attention."""
    if type(pattern) is int and pattern > 0:
        pattern = [(layer + 1) % pattern != 0 for layer in range(n_layers)]
    if not isinstance(pattern, list | np.ndarray) or len(pattern) != n_layers:
        raise header.broken(f"{PATTERN} of {n_layers} layers", f"{pattern!r:.80}")
    return ["sliding_attention" if slides else "full_attention" for slides in pattern]
