"""Pico models of the architectures that people use: real config classes, two layers, random weights."""

from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

VOCABULARY = 200
WINDOW = 8
SIZE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
WINDOWED = SIZE | {"sliding_window": WINDOW}
HEADS = {"head_dim": 32}  # other than hidden size by heads, as Qwen 3 and Gemma have it
ONE_OF_EACH = {"layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {"num_experts_per_tok": 2}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],
    "long_factor": [1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
    "factor": 4.0,
    "original_max_position_embeddings": 32,
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama 2": ("LlamaConfig", SIZE | {"num_key_value_heads": 4}),
    "llama 3": ("LlamaConfig", SIZE | {"rope_parameters": LLAMA3}),
    "mistral": ("MistralConfig", WINDOWED),
    "qwen2": ("Qwen2Config", WINDOWED | {"use_sliding_window": True, "max_window_layers": 1}),
    "qwen3": ("Qwen3Config", SIZE | HEADS | {"tie_word_embeddings": True}),
    "gemma 2": ("Gemma2Config", WINDOWED | HEADS | {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 6.0}),
    "gemma 3": ("Gemma3TextConfig", WINDOWED | HEADS | ONE_OF_EACH),
    "phi-3": ("Phi3Config", WINDOWED),
    "gpt-2": (
        "GPT2Config",
        {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "eos_token_id": 1},
    ),
    "olmo 2": ("Olmo2Config", SIZE),
    "smollm3": ("SmolLM3Config", SIZE | {"no_rope_layers": [1, 0]}),
    "qwen3 moe": ("Qwen3MoeConfig", SIZE | HEADS | EXPERTS | {"num_experts": 4, "moe_intermediate_size": 24}),
    "mixtral": ("MixtralConfig", SIZE | EXPERTS | {"num_local_experts": 4}),
    "cohere": ("CohereConfig", SIZE | {"logit_scale": 0.5}),
    "phi-3 long": ("Phi3Config", SIZE | {"original_max_position_embeddings": 32, "rope_parameters": LONG}),
    "gpt-oss": ("GptOssConfig", WINDOWED | HEADS | EXPERTS | {"num_local_experts": 4, "rope_parameters": LLAMA3}),
    "bloom": ("BloomConfig", {"vocab_size": VOCABULARY, "hidden_size": 64, "n_layer": 2, "n_head": 4}),
    "llama dynamic": ("LlamaConfig", SIZE | {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0}}),
    "deepseek 3": (
        "DeepseekV3Config",
        SIZE
        | EXPERTS
        | {"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "v_head_dim": 8}
        | {"qk_nope_head_dim": 8, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 16},
    ),
    "diffllama": ("DiffLlamaConfig", SIZE),
    "gemma 3n": (
        "Gemma3nTextConfig",
        SIZE
        | {"num_kv_shared_layers": 1, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCABULARY}
        | {"laurel_rank": 8, "layer_types": ["full_attention"] * 2, "activation_sparsity_pattern": [0.0] * 2}
        | HEADS,
    ),
    "llama 4": ("Llama4TextConfig", SIZE | {"intermediate_size_mlp": 96, "num_local_experts": 4}),
    "mpt": ("MptConfig", {"vocab_size": VOCABULARY, "d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 128}),
    "mamba": ("MambaConfig", {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 4}),
}


def random_model(name: str) -> PreTrainedModel:
    """Make a model whose every parameter matters: no norm is one, no bias is zero, logits have a spread near 1."""
    kind, settings = CONFIGS[name]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0 if parameter.dim() > 1 else 1.0).add_(0.1 * torch.randn(parameter.shape))
    ready: PreTrainedModel = model.eval()
    return ready
