"""Small checkpoints, vectors and edits for audits, and the arithmetic of other tools done by hand."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from prosocial.editing.checkpoints import Checkpoint
from prosocial.editing.edits import apply_edit, plan_edit
from prosocial.editing.vectors import vector_from_checkpoints

MATRIX, NORM, HEAD = "model.layers.0.mlp.down_proj.weight", "model.norm.weight", "lm_head.weight"
Tensors = dict[str, torch.Tensor]


def write(folder: Path, tensors: Mapping[str, torch.Tensor], **sides: object) -> Path:
    """Write a model folder; further files by name, `__` standing for the dot."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    for name, value in sides.items():
        text = value if isinstance(value, str) else json.dumps(value)
        (folder / name.replace("__", ".")).write_text(text)
    save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def read(folder: Path) -> Tensors:
    return load_file(folder / "model.safetensors")


def base_tensors(dtype: torch.dtype = torch.bfloat16, *, size: int = 96, seed: int = 0) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    shapes = {MATRIX: (size, size), NORM: (size,), HEAD: (size, 8)}
    return {name: (0.02 * torch.randn(shape, generator=generator)).to(dtype) for name, shape in shapes.items()}


def make_vector(folder: Path, base: Tensors, *, step: float = 1e-3, seed: int = 1, name: str = "vector") -> Tensors:
    """Write the vector of a random fine-tune of matrix and norm, kept in fp32, and return its deltas."""
    generator = torch.Generator().manual_seed(seed)
    moved = {each: tensor.float() for each, tensor in base.items()}
    for each in (MATRIX, NORM):
        moved[each] = moved[each] + step * torch.randn(moved[each].shape, generator=generator)
    if not (folder / "base").exists():
        write(folder / "base", base)
    write(folder / f"harmful-{name}", moved)
    vector_from_checkpoints(base=folder / "base", harmful=folder / f"harmful-{name}", out=folder / name)
    return {each: moved[each] - base[each].float() for each in (MATRIX, NORM)}


def edit(folder: Path, scale: Any = 0.6, *, out: str = "out", vector: str = "vector", **options: Any) -> Path:
    """Edit `base` with the package itself."""
    base = options.pop("base", "base")
    apply_edit(plan_edit(Checkpoint.open(folder / base), folder / vector, scale=scale), folder / out, **options)
    return folder / out


def move_one_ulp(folder: Path, name: str, at: int) -> None:
    """Move one element of a tensor to its neighbour."""
    tensors = read(folder)
    kind = torch.int32 if tensors[name].dtype == torch.float32 else torch.int16
    tensors[name].view(kind).view(-1)[at] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
