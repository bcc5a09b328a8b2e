"""The config for running a bundle's graph in onnxruntime-genai (its generic model type `decoder`)."""

from collections.abc import Sequence
from typing import Any

from .precision import Precision

CONTEXT_LENGTH = 2048  # used if the model has no limit
INPUTS = {
    "input_ids": "input_ids",
    "attention_mask": "attention_mask",
    "position_ids": "position_ids",
    "past_key_names": "past_key_values.%d.key",
    "past_value_names": "past_key_values.%d.value",
}
OUTPUTS = {
    "logits": "logits",
    "present_key_names": "present.%d.key",
    "present_value_names": "present.%d.value",
}


def genai_config(
    *,
    n_layers: int,
    n_kv_heads: int,
    n_heads: int,
    head_size: int,
    hidden_size: int,
    vocabulary_size: int,
    context_length: int | None,
    end_ids: Sequence[int],
    begin_id: int | None,
    pad_id: int,
    shares_cache: bool,
    precision: Precision,
) -> dict[str, Any]:
    """Return the content of `genai_config.json`, in the form that onnxruntime-genai's own builder writes.

    `precision` is only information for readers: onnxruntime-genai takes it from the graph and ignores unknown keys.
    """
    longest = context_length or CONTEXT_LENGTH
    decoder = {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        "filename": "model.onnx",
        "head_size": head_size,
        "hidden_size": hidden_size,
        "num_attention_heads": n_heads,
        "num_hidden_layers": n_layers,
        "num_key_value_heads": n_kv_heads,
        "inputs": INPUTS,
        "outputs": OUTPUTS,
    }
    return {
        "precision": precision,
        "model": {
            "type": "decoder",
            "bos_token_id": end_ids[0] if begin_id is None else begin_id,
            "eos_token_id": list(end_ids),
            "pad_token_id": pad_id,
            "vocab_size": vocabulary_size,
            "context_length": longest,
            "decoder": decoder,
        },
        "search": {
            "do_sample": False,
            "max_length": longest,
            "num_beams": 1,
            "temperature": 1.0,
            "top_k": 50,
            "top_p": 1.0,
            "repetition_penalty": 1.0,
            "past_present_share_buffer": shares_cache,
        },
    }
