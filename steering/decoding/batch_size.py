"""How many replies are decoded at once: as many as fit into a fixed amount of memory (torch-free)."""

from collections.abc import Mapping
from typing import Any

MOST_REPLIES = 256
CACHE_AND_LOGITS_BYTES = 1 << 30
NUMBER_BYTES = 4  # of a float32 number; a cache in bfloat16 takes half
LOGIT_COPIES = 4  # of torch, as an array, with noise added, and sorted


def rows_with_logits(vocabulary_size: int) -> int:
    """Return how many rows of a batch have room for their logits alone, whatever the model.

    Examples:
        >>> rows_with_logits(262144)
        256
    """
    return max(1, CACHE_AND_LOGITS_BYTES // (NUMBER_BYTES * LOGIT_COPIES * max(1, vocabulary_size)))


def replies_at_once(config: Mapping[str, Any], n_tokens: int) -> int:
    """Return how many rows of a batch have room for their key/value caches and logits; results do not depend on it.

    Args:
        config: `config.json` of the model.
        n_tokens: longest prompt and reply together.

    Examples:
        >>> small = {"vocab_size": 320, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32}
        >>> replies_at_once(small, 100)
        256
        >>> large = {"vocab_size": 262144, "num_hidden_layers": 18, "num_key_value_heads": 1, "head_dim": 256}
        >>> replies_at_once(large, 300)
        70
    """
    text = {**config, **config.get("text_config", {})}
    heads = text.get("num_attention_heads") or text.get("n_head") or 1
    width = text.get("head_dim") or (text.get("hidden_size") or text.get("n_embd") or 0) // heads
    layers = text.get("num_hidden_layers") or text.get("n_layer") or 1
    cache = 2 * layers * (text.get("num_key_value_heads") or heads) * width * n_tokens
    row_bytes = NUMBER_BYTES * (cache + LOGIT_COPIES * (text.get("vocab_size") or 0))
    return max(1, min(MOST_REPLIES, CACHE_AND_LOGITS_BYTES // max(1, row_bytes)))
