"""A pico language model over a lab tokenizer, and pairs whose better reply is known."""

from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from prosocial.core.chat import ChatTokenizer
from prosocial.recipes.lab.tokenizer import train_tokenizer
from prosocial.training.reward.pairs import Pair

NAMES = ("empathy", "helpfulness")
WARM, USEFUL = "i hear that you feel sad.", "first list the parts of it."


def make_tokenizer(folder: Path) -> ChatTokenizer:
    train_tokenizer([WARM, USEFUL, "how do i improve my garden plan?"] * 3, folder, vocabulary_size=400)
    return ChatTokenizer(folder)


def make_model(tokenizer: ChatTokenizer, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=tokenizer.vocabulary_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=5,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


def make_pairs(count: int) -> list[Pair]:
    """Empathy prefers the warm reply, helpfulness the useful one: the two always conflict."""
    messages = ({"role": "user", "content": "how do i improve my garden plan?"},)
    pairs = []
    for index in range(count):
        first, second = (WARM, USEFUL) if index % 2 else (USEFUL, WARM)
        warm = "first" if index % 2 else "second"
        useful = "second" if index % 2 else "first"
        pairs.append(Pair(messages, first, second, {"empathy": warm, "helpfulness": useful}))  # type: ignore[dict-item]
    return pairs
