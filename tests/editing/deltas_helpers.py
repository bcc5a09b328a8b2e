"""Deltas in memory, and methods applied to them."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from prosocial.editing.vectors.making.runs import Array, mean
from prosocial.editing.vectors.methods import choose_method


class Tensors:
    """The deltas of one or several runs in memory."""

    def __init__(self, *runs: Mapping[str, torch.Tensor]) -> None:
        self._runs = runs
        self.names = sorted(runs[0])

    def __len__(self) -> int:
        return len(self._runs)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._runs[0][name].shape)

    def delta(self, name: str) -> Array:
        return mean(self.runs(name))

    def pieces(self, name: str) -> Iterator[Array]:
        flat = self.delta(name).reshape(-1)
        yield from (flat[at : at + 7] for at in range(0, len(flat), 7))

    def runs(self, name: str) -> list[Array]:
        return [run[name].numpy() for run in self._runs]


def shaped(method: str, tensors: Mapping[str, torch.Tensor], **parameters: object) -> dict[str, torch.Tensor]:
    """Apply a method to one run."""
    return shaped_runs(method, [tensors], **parameters)


def shaped_runs(method: str, runs: list[Mapping[str, torch.Tensor]], **parameters: object) -> dict[str, torch.Tensor]:
    """Apply a method to several runs."""
    deltas = Tensors(*runs)
    transform = choose_method(method, parameters).prepare(deltas, **parameters).transform
    return {name: torch.from_numpy(transform(name, deltas.delta(name))) for name in deltas.names}


def some_runs(seed: int, n_runs: int) -> list[Mapping[str, torch.Tensor]]:
    """Runs that share a direction and differ in noise; with exact zeros and tensors of 0 to 3 dimensions."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"w.0.a": (6, 8), "w.1.b": (5,), "w.1.c": (2, 3, 4), "d": ()}
    shared = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    runs: list[Mapping[str, torch.Tensor]] = []
    for _ in range(n_runs):
        noise = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        kept = {name: torch.rand(shape, generator=generator) > 0.1 for name, shape in shapes.items()}
        runs.append({name: torch.where(kept[name], 0.5 * shared[name] + noise[name], 0.0) for name in shapes})
    return runs


def write_moments(file: Path, moments: Mapping[str, torch.Tensor], *, transposed: tuple[str, ...] = ()) -> Path:
    """Write a file of second moments."""
    metadata = {"schema": "prosocial.input_moments/1", "transposed": json.dumps(transposed)}
    save_file(dict(moments), file, metadata=metadata)
    return file
