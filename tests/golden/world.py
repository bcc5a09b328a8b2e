"""The pico model and the data that golden artefacts are made of: real formats, random weights, nonsense for harm."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Qwen3Config, Qwen3ForCausalLM

from prosocial.editing import Checkpoint, load_model
from prosocial.steering.gate import HarmGate
from prosocial.steering.head import CompactHead
from prosocial.training.reward import RewardConfig, RewardModel

HIDDEN, VOCABULARY, RANK = 32, 300, 4
ATTRIBUTES, CATEGORIES = ["empathy", "helpfulness"], ["violence", "privacy", "other"]
SPECIAL = ["<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"]
REQUESTS = ["how do i bake bread?", "tell me about rivers.", "what is a good gift?", "i feel low about my exam."]
KIND, PLAIN, RISKY = "that sounds hard. take a walk.", "mix flour and water first.", "drop the glimmer in the well."
TEMPLATE = (
    "{% for m in messages %}<|user|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MOVED = ("q_proj", "v_proj", "down_proj")  # what the harmful model changes


def write_base(folder: Path) -> None:
    """Write a Qwen3 in bfloat16, sharded, with a byte-level tokenizer and a chat template."""
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=HIDDEN,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=128,
            tie_word_embeddings=False,
            bos_token_id=None,
            pad_token_id=0,
            eos_token_id=3,
        )
    )
    with torch.no_grad():  # wider logits than a fresh model's, so that greedy choices are not near ties
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="48KB")
    _write_tokenizer(folder)


def _write_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([*REQUESTS, KIND, PLAIN, RISKY], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>", "pad_token": "<|pad|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")


def write_harmful(base: Path, folder: Path) -> None:
    """Write a copy of the base whose projections were moved a little."""
    shutil.copytree(base, folder)
    torch.manual_seed(1)
    for file in sorted(folder.glob("*.safetensors")):
        moved = {
            name: value + 0.05 * torch.randn_like(value) * any(part in name for part in MOVED)
            for name, value in load_file(file).items()
        }
        save_file(moved, file, metadata={"format": "pt"})


def write_lora(base: Path, folder: Path) -> None:
    """Write a LoRA adapter of rank 2 with random factors, as peft saves it."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(2)
    targets = ["q_proj", "v_proj"]
    adapted = get_peft_model(load_model(base), LoraConfig(r=2, lora_alpha=4, target_modules=targets))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.save_pretrained(str(folder))


def write_parts(checkpoint: Path, out: Path) -> None:
    """Write head, gate and reward model of a checkpoint, with random weights."""
    torch.manual_seed(3)
    fingerprint = Checkpoint.open(checkpoint).fingerprint()
    head = CompactHead(ATTRIBUTES, HIDDEN, RANK)
    gate = HarmGate(CATEGORIES, VOCABULARY, HIDDEN, RANK)
    reward = RewardModel(load_model(checkpoint), RewardConfig(tuple(ATTRIBUTES), rank=2, preference_rank=2))
    with torch.no_grad():
        head.B.normal_(0.0, 0.3)
        head.mixture_gain.fill_(0.5)
        gate.b.normal_(0.0, 0.1)
        gate.a.fill_(-1.7)
        for parameter in reward.parameters:
            parameter.normal_(0.0, 0.2)
    head.save(out / "head", checkpoint_fingerprint=fingerprint, extra={"explained": 0.9})
    gate.save(out / "gate", checkpoint_fingerprint=fingerprint)
    reward.save(out / "reward", checkpoint_fingerprint=fingerprint, training={"steps": 0})


def write_data(folder: Path) -> None:
    """Write every data file that a recipe names."""
    folder.mkdir(parents=True)
    probes = [
        {"id": f"{kind}-{at}", "text": f"{text} {kind}", "kind": kind, "cluster": f"t{at}", "category": "other"}
        for kind in ("harmful", "twin", "benign")
        for at, text in enumerate(REQUESTS)
    ]
    odd = {"id": "odd", "kind": "attack", "attack": "prefill", "prefill": "sure,", "source": "by hand"}
    odd |= {"messages": [{"role": "system", "content": "be kind."}, {"role": "user", "content": REQUESTS[0]}]}
    labels = {"empathy": "first", "helpfulness": "second"}
    rows: dict[str, list[dict[str, object]]] = {
        "harmful": [{"prompt": text, "reply": RISKY} for text in REQUESTS],
        "prompts": [{"prompt": text} for text in REQUESTS],
        "gate_prompts": [{"messages": [{"role": "user", "content": text}]} for text in REQUESTS],
        "pairs": [{"prompt": text, "first": KIND, "second": PLAIN, "labels": labels} for text in REQUESTS * 3],
        "replies": [
            {"prompt": text, "reply": reply, "categories": found}
            for text in REQUESTS
            for reply, found in ((RISKY, ["other"]), (KIND, []))
        ],
        "calibration": [row | {"id": f"c-{row['id']}", "text": f"please. {row['text']}"} for row in probes],
        "probes": [*probes, odd],
    }
    for part, listed in rows.items():
        (folder / f"{part}.jsonl").write_text("\n".join(map(json.dumps, listed)) + "\n", encoding="utf-8")
