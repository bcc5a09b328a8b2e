"""Training checkpoints without pickles: the states of optimiser, schedule and random generators as safetensors."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import Trainer

from prosocial.core.errors import InputError
from prosocial.core.json_text import parse_object

PICKLES = (".bin", ".pkl", ".pt", ".pth")
OPTIMIZER, SCHEDULE = "optimizer.safetensors", "scheduler.safetensors"


class ResumableTrainer(Trainer):
    """A trainer whose checkpoints hold no pickle; FSDP and DeepSpeed keep their own format."""

    args: Any  # transformers declares these as optional
    model: Any
    optimizer: Any
    lr_scheduler: Any

    @property
    def is_sharded(self) -> bool:
        """Whether weights are spread over processes."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        Path(output_dir or self.args.output_dir, "training_args.bin").unlink(missing_ok=True)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_sharded:
            super()._save_optimizer_and_scheduler(output_dir)
        elif self.args.should_save:
            write_state(Path(output_dir, OPTIMIZER), self.optimizer.state_dict())
            write_state(Path(output_dir, SCHEDULE), self.lr_scheduler.state_dict())

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or self.is_sharded:
            super()._load_optimizer_and_scheduler(checkpoint)
        else:
            load_state(Path(checkpoint, OPTIMIZER), self.optimizer.load_state_dict)
            load_state(Path(checkpoint, SCHEDULE), self.lr_scheduler.load_state_dict)

    def _save_rng_state(self, output_dir: str) -> None:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        write_state(self._rng_file(output_dir), _random_state())

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self._rng_file(checkpoint).is_file():
            load_state(self._rng_file(checkpoint), _set_random_state)

    def _rng_file(self, folder: str) -> Path:
        return Path(folder, f"rng_state_{self.args.process_index}.safetensors")


def require_no_pickle(checkpoint: Path) -> None:
    """Refuse a checkpoint with a file that torch would unpickle.

    Raises:
        InputError: there is one.
    """
    found = sorted(path.name for path in checkpoint.rglob("*") if path.suffix in PICKLES)
    if found:
        raise InputError(f"{checkpoint} should hold no pickle, found {found[0]}: delete the folder and train again")


def write_state(path: Path, state: Any) -> None:
    """Write nested dicts, lists and tuples of tensors, arrays and JSON values as one safetensors file.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "state.safetensors"
        >>> write_state(path, {0: (torch.ones(2), None), "rate": 0.5})
        >>> read_state(path)
        {0: (tensor([1., 1.]), None), 'rate': 0.5}
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = json.dumps({"state": _packed(state, tensors)})
    save_file(tensors, path, metadata={"state": tree})


def read_state(path: Path) -> Any:
    """Return what `write_state` wrote, tensors on the CPU.

    Raises:
        InputError: the file is missing or has another content.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tree = parse_object((file.metadata() or {}).get("state", "{}"), where=str(path))
            return _unpacked(tree["state"], file.get_tensor)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} should hold a state of this training: {error}; delete its folder to resume earlier"
        ) from None


def load_state(path: Path, load: Callable[[Any], object]) -> None:
    """Read a state and pass it on.

    Raises:
        InputError: the file is missing, or its content does not fit.
    """
    state = read_state(path)
    try:
        load(state)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} should hold a state of this training: {error}; delete its folder to resume earlier"
        ) from None


def _packed(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Return a JSON value for a nested value; tensors go into `tensors`, and their names stand for them."""
    match value:
        case torch.Tensor() | np.ndarray():
            name = str(len(tensors))
            tensors[name] = torch.as_tensor(value).detach().cpu().contiguous().clone()
            return {"tensor" if isinstance(value, torch.Tensor) else "array": name}
        case dict():
            return {"dict": [[_packed(key, tensors), _packed(entry, tensors)] for key, entry in value.items()]}
        case list() | tuple():
            return {type(value).__name__: [_packed(entry, tensors) for entry in value]}
    return value


def _unpacked(value: Any, tensor: Callable[[str], torch.Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    match kind:
        case "tensor":
            return tensor(content)
        case "array":
            return tensor(content).numpy()
        case "dict":
            return {_unpacked(key, tensor): _unpacked(entry, tensor) for key, entry in content}
        case "list" | "tuple":
            entries = [_unpacked(entry, tensor) for entry in content]
            return tuple(entries) if kind == "tuple" else entries
    raise ValueError(f"found {kind!r:.40} where a kind of value should stand")


def _random_state() -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "cpu": torch.random.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.random.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
