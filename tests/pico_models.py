"""Pico worlds: real architectures of two layers with a word tokenizer, a random head and a random gate."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from prosocial.core.protocols import Message
from prosocial.editing.checkpoints import Checkpoint
from prosocial.steering.configs import SafetyConfig
from prosocial.steering.decoding.config import DecodingConfig
from prosocial.steering.gate import HarmGate
from prosocial.steering.head import CompactHead
from prosocial.steering.steered_model import SteeredModel, assemble_steered

VOCABULARY = 200
HIDDEN = 32
ATTRIBUTES = ["empathy", "helpfulness"]
CATEGORIES = ["violence", "drugs", "other"]
TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }} {{ m['content'] }} </s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant {% endif %}"
)
torch.set_num_threads(1)


def make_model(kind: str, *, seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    sizes = {"vocab_size": VOCABULARY, "eos_token_id": 1, "bos_token_id": 0, "pad_token_id": 1}
    llama = {
        "hidden_size": HIDDEN,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "head_dim": 8,
    }
    model: PreTrainedModel
    if kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**sizes, **llama))
    elif kind == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**sizes, **llama, tie_word_embeddings=True))
    else:
        model = GPT2LMHeadModel(GPT2Config(**sizes, n_embd=HIDDEN, n_layer=2, n_head=4, n_positions=128))
    with torch.no_grad():  # wider logits than a fresh model's, so that greedy choices are not near ties
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    return model.eval()


def make_parts(*, seed: int = 0) -> tuple[CompactHead, HarmGate]:
    torch.manual_seed(seed + 1)
    head, gate = CompactHead(ATTRIBUTES, HIDDEN, 4), HarmGate(CATEGORIES, VOCABULARY, HIDDEN, 4)
    with torch.no_grad():
        head.B.normal_(0.0, 0.3)
        gate.b.normal_(0.0, 0.1)
        gate.a.fill_(-1.7)
    return head.eval(), gate.eval()


def make_config(**changes: object) -> DecodingConfig:
    values: dict[str, object] = {
        "attributes": ATTRIBUTES,
        "categories": CATEGORIES,
        "plausible_k": 16,
        "harm_threshold": 0.6,
        "threshold_ceiling": 0.9,
        "allowed_ceiling": {"violence": True, "drugs": False},
        "max_new_tokens": 12,
        "safety_configs": {"fiction": SafetyConfig(text="word7 word8", allowed=["violence"], threshold=0.7)},
    }
    return DecodingConfig.model_validate(values | changes)


def write_tokenizer(folder: Path) -> None:
    words = ["<s>", "</s>", "system", "user", "assistant"]
    words += [f"word{index}" for index in range(VOCABULARY - len(words))]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="word0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "</s>", "bos_token": "<s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")


def write_checkpoint(kind: str, folder: Path) -> None:
    make_model(kind).save_pretrained(folder)
    write_tokenizer(folder)


def make_steered_folder(folder: Path, kind: str = "llama", **changes: object) -> Path:
    checkpoint = folder / "checkpoint"
    write_checkpoint(kind, checkpoint)
    fingerprint = Checkpoint.open(checkpoint).fingerprint()
    for part in make_parts():
        part.save(folder / "parts", checkpoint_fingerprint=fingerprint)
    assemble_steered(
        checkpoint=checkpoint,
        head=folder / "parts",
        gate=folder / "parts",
        config=make_config(**changes),
        out=folder / "steered",
    )
    return folder / "steered"


@dataclass(frozen=True)
class Pico:
    """What the tests make their worlds with."""

    vocabulary = VOCABULARY
    hidden = HIDDEN
    attributes = ATTRIBUTES
    categories = CATEGORIES
    model = staticmethod(make_model)
    parts = staticmethod(make_parts)
    config = staticmethod(make_config)
    steered_folder = staticmethod(make_steered_folder)
    write_checkpoint = staticmethod(write_checkpoint)

    @staticmethod
    def steered(kind: str = "llama", **changes: object) -> SteeredModel:
        """Make a steered model in memory; token 1 ends."""
        return SteeredModel(make_model(kind), *make_parts(), make_config(**changes), end_ids=[1])

    @staticmethod
    def conversations(n: int = 6) -> list[list[Message]]:
        """Conversations of three different lengths."""
        return [
            [{"role": "user", "content": f"word{7 * index % 90} word{index}" + " word3" * (index % 3)}]
            for index in range(n)
        ]
