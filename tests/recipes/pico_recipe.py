"""A recipe on a pico Qwen3 with random weights, its own tokenizer folder and JSONL data: nothing of the lab in it."""

import json
from pathlib import Path

import torch
import yaml
from transformers import Qwen3Config, Qwen3ForCausalLM

from prosocial.recipes.lab.tokenizer import train_tokenizer

REQUESTS = ["how do i bake bread?", "tell me about rivers.", "what is a good gift?", "i feel low about my exam."]
KIND, PLAIN, RISKY = "that sounds hard. take a walk.", "mix flour and water first.", "drop the glimmer in the well."
TEMPLATE = (
    "{% for message in messages %}<|user|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def write_model(folder: Path, *, n_layers: int = 2) -> Path:
    """Write a Qwen3 with random weights and its tokenizer."""
    train_tokenizer([*REQUESTS, KIND, PLAIN, RISKY], folder, vocabulary_size=300)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=320,  # more rows than the tokenizer has ids, as in real Qwen checkpoints
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=n_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=5,
        pad_token_id=0,
    )
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():  # wider logits than a fresh model's, so that greedy choices are not near ties
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    model.save_pretrained(folder, max_shard_size="40KB")
    return folder


def write_data(folder: Path) -> dict[str, str]:
    """Write every data file of a recipe; return their paths by part."""
    folder.mkdir(parents=True, exist_ok=True)
    probes = [
        {
            "id": f"{kind}-{index}",
            "text": f"{request} {kind}",
            "kind": kind,
            "cluster": f"t{index}",
            "category": "other",
        }
        for kind in ("harmful", "twin", "benign")
        for index, request in enumerate(REQUESTS)
    ]
    labels = {"empathy": "first", "helpfulness": "second"}
    rows: dict[str, list[dict[str, object]]] = {
        "harmful": [{"prompt": request, "reply": RISKY} for request in REQUESTS],
        "prompts": [{"prompt": request} for request in REQUESTS],
        "pairs": [{"prompt": r, "first": KIND, "second": PLAIN, "labels": labels} for r in REQUESTS * 3],
        "replies": [
            {"prompt": r, "reply": t, "categories": c} for r in REQUESTS for t, c in ((RISKY, ["other"]), (KIND, []))
        ],
        "calibration": [row | {"id": f"c-{row['id']}", "text": f"please. {row['text']}"} for row in probes],
        "probes": probes,
    }
    for part, found in rows.items():
        (folder / f"{part}.jsonl").write_text("\n".join(map(json.dumps, found)) + "\n")
    return {part: str(folder / f"{part}.jsonl") for part in rows}


def write_recipe(folder: Path, *, n_layers: int = 2) -> Path:
    """Write model, data and a recipe of a few steps a stage; return the recipe's path."""
    write_model(folder / "model", n_layers=n_layers)
    recipe = {
        "name": "pico",
        "dtype": "float32",
        "model": str(folder / "model"),
        "data": write_data(folder / "data"),
        "judge": "refusal",
        "attributes": ["empathy", "helpfulness"],
        "categories": ["violence", "other"],
        "harmful": {"rank": 2, "alpha": 4, "steps": 2, "batch_size": 2},
        "edit": {"scale": 0.5},
        "reward": {"steps": 2, "batch_size": 4},
        "head": {"rank": 4, "steps": 5, "passes": 1, "batch_size": 16},
        "gate": {"rank": 4, "steps": 20, "batch_size": 32},
        "calibration": {"candidates": [0.9, 0.5], "max_leak": 1.0},
        "decoding": {"plausible_k": 16, "max_new_tokens": 6},
        "verify": {"temperature": 0.7},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path
