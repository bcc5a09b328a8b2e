"""A checkpoint of a training run as one safetensors file, written atomically."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from prosocial.core.contents import read_as
from prosocial.core.errors import InputError
from prosocial.core.files import canonical_json, storage_errors, written_aside

SCHEMA = "prosocial.reward_training/1"


@dataclass(frozen=True)
class StepRecord:
    """The measurements of one step, before its update.

    Attributes:
        step: number of the step, from 0.
        loss: PARM's loss, `weights @ losses`.
        losses: loss of each attribute.
        weights: mean preference for each attribute.
        conflicting_share: share of attribute pairs whose gradients conflict; None if not measured.
    """

    step: int
    loss: float
    losses: list[float]
    weights: list[float]
    conflicting_share: float | None


@dataclass(frozen=True)
class TrainingState:
    """Everything that the next step depends on.

    Attributes:
        history: one record per finished step.
        parameters: the adapter's parameters, in their order.
        moments: AdamW's first and second moments of each parameter.
        famo: losses before and after each step; empty for methods other than FAMO.
    """

    history: list[StepRecord]
    parameters: list[Tensor]
    moments: list[tuple[Tensor, Tensor]]
    famo: list[list[list[float]]]

    def write(self, path: Path, *, run_key: str) -> None:
        """Write the state to a temporary file, then rename it to `path`; `run_key` identifies the run."""
        tensors = {f"parameter.{n}": tensor.detach().contiguous() for n, tensor in enumerate(self.parameters)}
        for n, (first, second) in enumerate(self.moments):
            tensors |= {f"first.{n}": first.contiguous(), f"second.{n}": second.contiguous()}
        history = canonical_json([asdict(record) for record in self.history])
        metadata = {"schema": SCHEMA, "run": run_key, "history": history, "famo": canonical_json(self.famo)}
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(path) as aside:
            save_file(tensors, aside, metadata=metadata)

    @classmethod
    def read(cls, path: Path, *, run_key: str) -> "TrainingState":
        """Read a state.

        Raises:
            InputError: the file is damaged, or belongs to another run than `run_key`.
        """
        try:
            with safe_open(str(path), framework="pt") as stream:
                metadata: dict[str, Any] = stream.metadata() or {}
                tensors: dict[str, Tensor] = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise InputError(f"{path} should be a training checkpoint: {error}") from None
        if metadata.get("schema") != SCHEMA or metadata.get("run") != run_key:
            raise InputError(f"{path} should belong to this training, it is of other data or settings")
        n = sum(name.startswith("parameter.") for name in tensors)
        with read_as("a training checkpoint", path):
            return cls(
                [StepRecord(**row) for row in json.loads(metadata["history"])],
                [tensors[f"parameter.{i}"] for i in range(n)],
                [(tensors[f"first.{i}"], tensors[f"second.{i}"]) for i in range(n)],
                json.loads(metadata["famo"]),
            )


def moments_of(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> list[tuple[Tensor, Tensor]]:
    """Return AdamW's moments of each parameter; the optimiser must have taken a step."""
    states = [optimizer.state[parameter] for parameter in parameters]
    return [(state["exp_avg"], state["exp_avg_sq"]) for state in states]


def restore(state: TrainingState, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    """Copy a state's parameters and moments into the model and the optimiser."""
    with torch.no_grad():
        for parameter, value, (first, second) in zip(parameters, state.parameters, state.moments, strict=True):
            parameter.copy_(value)
            optimizer.state[parameter] = {
                "step": torch.tensor(float(len(state.history))),
                "exp_avg": first.to(parameter),
                "exp_avg_sq": second.to(parameter),
            }
