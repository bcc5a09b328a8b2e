"""Small checkpoints for tests: plain tensors in a folder, and pico models of real architectures."""

import copy
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

MATRIX = "model.layers.0.mlp.down_proj.weight"


def write_raw(file: Path, entries: object, data: bytes = b"") -> Path:
    """Write a safetensors file whose header may be anything."""
    header = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return file


def write_checkpoint(
    folder: Path, tensors: Mapping[str, torch.Tensor], *, config: Mapping[str, Any] | None = None, n_shards: int = 1
) -> Path:
    """Write a model folder from plain tensors, dealt out to shards."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} | dict(config or {})))
    if n_shards == 1:
        save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    places = {}
    for shard in range(n_shards):
        name = f"model-{shard + 1:05}-of-{n_shards:05}.safetensors"
        part = {key: tensors[key] for key in list(tensors)[shard::n_shards]}
        save_file(part, folder / name, metadata={"format": "pt"})
        places |= dict.fromkeys(part, name)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def some_tensors(seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Tensors of a tiny untied model."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "model.embed_tokens.weight": (11, 4),
        MATRIX: (4, 6),
        "model.norm.weight": (4,),
        "lm_head.weight": (11, 4),
    }
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


def moved(tensors: Mapping[str, torch.Tensor], step: float = 0.05, seed: int = 1) -> dict[str, torch.Tensor]:
    """The tensors after a small random fine-tune."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (tensor.float() + step * torch.randn(tensor.shape, generator=generator)).to(tensor.dtype)
        for name, tensor in tensors.items()
    }


SIZE: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}


def pico(kind: str, dtype: torch.dtype = torch.float32) -> Any:
    """Return a model of hidden size 32 with 2 layers: llama (tied), qwen3 (untied), gpt2 (tied, weights [in, out])."""
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen3Config

    configs: dict[str, Any] = {
        "llama": lambda: LlamaConfig(**SIZE, tie_word_embeddings=True),
        "qwen3": lambda: Qwen3Config(**SIZE, head_dim=16, tie_word_embeddings=False),
        "gpt2": lambda: GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=2, n_positions=64),
    }
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(configs[kind]()).to(dtype)
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        noise = 0.1 * torch.randn(parameter.shape, generator=generator)
        parameter.data += noise.to(dtype)
    return model.eval()


def fine_tuned(model: Any, step: float = 0.02) -> Any:
    """Return a copy of a model with every parameter moved a little."""
    tuned = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(7)
    for parameter in tuned.parameters():
        parameter.data += (step * torch.randn(parameter.shape, generator=generator)).to(parameter.dtype)
    return tuned
