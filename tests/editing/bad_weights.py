"""Ways to spoil a sound folder of weights, and the command that should then refuse it."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file

from prosocial.editing.vectors.adapter_config import SUBTRACTS_KEY

from ..weights_helpers import MATRIX, write_raw

EMBEDDING, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
KEY = f"base_model.model.{MATRIX.removesuffix('.weight')}"
Change = Callable[[Path], object]


class Case(NamedTuple):
    """What is done to a sound folder, the command, and what its one line must hold: the place and the remedy."""

    change: Change
    command: str
    expected: tuple[str, ...]


EDIT = "edit base --subtract vector --scale 0.5 -o out"
VECTOR = "vector --base base --harmful harmful -o out"
ADAPTER = "vector --base base --harmful adapter -o out"


def edit(change: Change, *expected: str) -> Case:
    return Case(change, EDIT, expected)


def vector(change: Change, *expected: str) -> Case:
    return Case(change, VECTOR, expected)


def adapter(change: Change, *expected: str) -> Case:
    return Case(change, ADAPTER, expected)


def command(words: str, *expected: str) -> Case:
    return Case(lambda folder: None, words, expected)


def weights(name: str, change: Callable[[dict[str, torch.Tensor]], Mapping[str, torch.Tensor]]) -> Change:
    """Replace the weights of a checkpoint, written as one file."""

    def do(folder: Path) -> None:
        tensors: dict[str, torch.Tensor] = {}
        for file in sorted((folder / name).glob("*.safetensors")):
            tensors |= load_file(file)
            file.unlink()
        (folder / name / INDEX).unlink(missing_ok=True)
        changed = {key: tensor.contiguous() for key, tensor in change(tensors).items()}
        save_file(changed, folder / name / SINGLE, metadata={"format": "pt"})

    return do


def config(path: str, **entries: object) -> Change:
    """Change entries of a JSON file."""

    def do(folder: Path) -> None:
        file = folder / path
        file.write_text(json.dumps(json.loads(file.read_text()) | entries))

    return do


def text(path: str, content: str) -> Change:
    return lambda folder: (folder / path).write_text(content)


def gone(*paths: str) -> Change:
    return lambda folder: [(folder / path).unlink() for path in paths]


def quantised(method: str) -> Change:
    return config("base/config.json", quantization_config={"quant_method": method})


def coded(name: str, tensor: torch.Tensor) -> Change:
    return weights("base", lambda tensors: tensors | {name: tensor})


def index(**places: str | None) -> Change:
    """Change places of the target's index; None takes a tensor out."""

    def do(folder: Path) -> None:
        file = folder / "base" / INDEX
        value = json.loads(file.read_text())
        merged = value["weight_map"] | places
        file.write_text(json.dumps(value | {"weight_map": {k: v for k, v in merged.items() if v is not None}}))

    return do


def header(change: Callable[[dict[str, Any]], object], data: bytes = bytes(24)) -> Change:
    """Replace a shard of the target: two tensors of three fp32 numbers, then what `change` makes of their header."""

    def do(folder: Path) -> None:
        entries: dict[str, Any] = {
            "a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
            "b": {"dtype": "F32", "shape": [3], "data_offsets": [12, 24]},
        }
        write_raw(folder / "base" / SHARDS[0], change(entries) or entries, data)

    return do


def shard(change: Callable[[bytes], bytes]) -> Change:
    def do(folder: Path) -> None:
        file = folder / "base" / SHARDS[0]
        file.write_bytes(change(file.read_bytes()))

    return do


def only(name: str) -> Change:
    """Leave the target with its config and one file that is no safetensors."""

    def do(folder: Path) -> None:
        for file in (INDEX, *SHARDS):
            (folder / "base" / file).unlink()
        (folder / "base" / name).write_bytes(b"x" * 64)

    return do


def factors(change: Callable[[dict[str, torch.Tensor]], Mapping[str, torch.Tensor]]) -> Change:
    def do(folder: Path) -> None:
        file = folder / "adapter" / "adapter_model.safetensors"
        save_file(dict(change(load_file(file))), file)

    return do


def variant(**entries: object) -> Case:
    (key, value), *_ = entries.items()
    return adapter(
        config("adapter/adapter_config.json", **entries), "adapter ", f"{key}", f"{value!r}"[:60], "merge it"
    )


def large(folder: Path) -> None:
    """A sparse side file larger than the disk."""
    file = folder / "base" / "tokenizer.model"
    file.touch()
    os.truncate(file, min(2 * shutil.disk_usage(folder).free, 1 << 43))


def subtracting(folder: Path) -> None:
    file = folder / "adapter" / "adapter_model.safetensors"
    save_file(load_file(file), file, metadata={"format": "pt", SUBTRACTS_KEY: "true"})


def spoiled(tensors: dict[str, torch.Tensor], value: float, name: str = MATRIX) -> dict[str, torch.Tensor]:
    tensors[name] = tensors[name].clone()
    tensors[name][0, 0] = value
    return tensors
