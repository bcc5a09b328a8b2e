"""Pico models as GGUF files, as llama.cpp's converter writes them (`convert_hf_to_gguf.py`)."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch
import transformers
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from transformers import PreTrainedModel

from ...architectures import CONFIGS, HEADS, SIZE, VOCABULARY

TEMPLATE = "{% for m in messages %}<s>{{ m['role'] }} {{ m['content'] }}<end_of_turn>{% endfor %}"
GEMMAS = ("<pad>", "<eos>", "<bos>", "<mask>")  # tokens that every Gemma has
LLAMA31 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 32}
LINEAR = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 8.0}
LOCAL = {"rope_type": "default", "rope_theta": 10_000.0}
# name: architecture of llama.cpp, class of the config, its settings. Queries are scaled as llama.cpp does it.
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama 2": ("llama", *CONFIGS["llama 2"]),
    "llama 3.1": ("llama", "LlamaConfig", SIZE | {"rope_parameters": LLAMA31}),
    "qwen2": ("qwen2", "Qwen2Config", SIZE),
    "qwen3": ("qwen3", *CONFIGS["qwen3"]),
    "qwen3 yarn": ("qwen3", "Qwen3Config", SIZE | HEADS | {"rope_parameters": YARN}),
    "qwen3 moe": (
        "qwen3moe",
        "Qwen3MoeConfig",
        CONFIGS["qwen3 moe"][1] | {"norm_topk_prob": True, "moe_intermediate_size": 32},
    ),
    "gemma 2": ("gemma2", "Gemma2Config", CONFIGS["gemma 2"][1] | {"query_pre_attn_scalar": 32}),
    "gemma 3": ("gemma3", "Gemma3TextConfig", CONFIGS["gemma 3"][1] | {"query_pre_attn_scalar": 32}),
    "gemma 3 linear": (
        "gemma3",
        "Gemma3TextConfig",
        CONFIGS["gemma 3"][1]
        | {"query_pre_attn_scalar": 32, "rope_parameters": {"full_attention": LINEAR, "sliding_attention": LOCAL}},
    ),
    "phi-3": ("phi3", *CONFIGS["phi-3"]),
}
Write = Callable[[GGUFWriter], object]
Array = npt.NDArray[Any]


def random_model(name: str) -> PreTrainedModel:
    """Make a model whose every parameter matters, and which every step of the way stores exactly."""
    _, kind, settings = MODELS[name]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0 if parameter.dim() > 1 else 1.0).add_(0.1 * torch.randn(parameter.shape))
            parameter.copy_((parameter * 1024).round() / 1024)  # so that a norm plus one, minus one, is the norm
    ready: PreTrainedModel = model.eval()
    return ready


def sentencepiece_words() -> list[str]:
    words = ["<unk>", "<s>", "</s>", "<end_of_turn>", *GEMMAS, "▁", *"abcdefghijklmnopqrstuvwxyz"]
    words += ["th", "the", "▁the", "at"]
    return words + [f"[{index}]" for index in range(VOCABULARY - len(words))]


def add_sentencepiece(writer: GGUFWriter) -> None:
    """Add a vocabulary whose merges follow from its scores, as Llama 2 has it."""
    words = sentencepiece_words()
    kinds = {"<unk>": TokenType.UNKNOWN} | dict.fromkeys(("<s>", "</s>", "<end_of_turn>"), TokenType.CONTROL)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([-float(index) for index in range(len(words))])
    writer.add_token_types([kinds.get(word, TokenType.NORMAL) for word in words])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)


def byte_level_words() -> list[str]:
    words = ["<|endoftext|>", "<|im_end|>", "Ġ", *"abcdefghijklmnopqrstuvwxyz", "th", "the", "Ġthe", "at", "<think>"]
    return words + [f"x{index}" for index in range(VOCABULARY - len(words))]


def add_byte_level(writer: GGUFWriter) -> None:
    """Add a vocabulary with merges, as Qwen has it."""
    words = byte_level_words()
    kinds = dict.fromkeys(("<|endoftext|>", "<|im_end|>"), TokenType.CONTROL) | {"<think>": TokenType.USER_DEFINED}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(words)
    writer.add_token_types([kinds.get(word, TokenType.NORMAL) for word in words])
    writer.add_token_merges(["t h", "th e", "Ġ the", "a t"])
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(0)


def write_gguf(
    file: Path,
    name: str = "llama 2",
    *,
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
    vocabulary: Write = add_sentencepiece,
    more: Write = lambda writer: None,
    change: Callable[[dict[str, Array]], object] = lambda tensors: None,
) -> PreTrainedModel:
    """Write a model to a GGUF file and return it.

    Args:
        file: the new file.
        name: a key of `MODELS`.
        kind: type of the matrices; norms and biases are F32, as llama.cpp has them.
        vocabulary: adds the tokenizer.
        more: adds further pairs.
        change: changes the tensors, by llama.cpp's names, before they are written.
    """
    model, architecture = random_model(name), MODELS[name][0]
    writer = GGUFWriter(file, architecture)
    _add_settings(writer, model.config)
    vocabulary(writer)
    more(writer)
    tensors = dict(_tensors(model, architecture))
    change(tensors)
    for tensor, values in tensors.items():
        if values.ndim < 2 or values.dtype != np.float32:
            writer.add_tensor(tensor, values)
        else:
            writer.add_tensor(tensor, gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _add_settings(writer: GGUFWriter, config: Any) -> None:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if writer.arch in ("gemma2", "gemma3", "phi3"):
        writer.add_sliding_window(config.sliding_window)
    if writer.arch == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if writer.arch == "gemma3":
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config.layer_types])
    if writer.arch == "qwen3moe":
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)


def _tensors(model: PreTrainedModel, architecture: str) -> Iterator[tuple[str, Array]]:
    config: Any = model.config
    [arch] = [key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture]
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        values: Array = weight.float().numpy()
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if name.endswith("mlp.experts.gate_up_proj"):
            gate, up = np.split(values, 2, axis=1)
            layer = name.split(".")[2]
            yield f"blk.{layer}.ffn_gate_exps.weight", np.ascontiguousarray(gate)
            yield f"blk.{layer}.ffn_up_exps.weight", np.ascontiguousarray(up)
            continue
        if name.endswith("mlp.experts.down_proj"):
            yield f"blk.{name.split('.')[2]}.ffn_down_exps.weight", values
            continue
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert stored is not None, name
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            values = values + 1
        if architecture == "llama" and (".q_proj." in name or ".k_proj." in name):
            n_heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
            values = _interleaved(values, n_heads)
        yield stored, values
    if _rope_type(config) == "llama3":
        yield "rope_freqs.weight", _rope_factors(model)


def _rope_type(config: Any) -> Any:
    return config.rope_parameters.get("rope_type")


def _interleaved(values: Array, n_heads: int) -> Array:
    """Reorder the rows of each head, from both halves one after the other to pairs."""
    return values.reshape(n_heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def _rope_factors(model: Any) -> Array:
    """Return by what each frequency is divided, computed as llama.cpp's converter does it."""
    rope: Mapping[str, Any] = model.config.rope_parameters
    head_dim = model.config.head_dim
    frequencies = 1.0 / rope["rope_theta"] ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    low, high = (rope["original_max_position_embeddings"] / rope[f"{which}_freq_factor"] for which in ("low", "high"))
    factors = []
    for wavelength in 2 * np.pi / frequencies:
        if wavelength < high:
            factors.append(1.0)
        elif wavelength > low:
            factors.append(rope["factor"])
        else:
            smooth = (rope["original_max_position_embeddings"] / wavelength - rope["low_freq_factor"]) / (
                rope["high_freq_factor"] - rope["low_freq_factor"]
            )
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, dtype=np.float32)
