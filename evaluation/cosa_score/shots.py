"""Examples for in-context learning: five requests with replies per config (torch-free)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from prosocial.core.errors import InputError
from prosocial.core.files import read_jsonl, require_keys
from prosocial.core.protocols import Message
from prosocial.core.training_rows import reply_of

from .configs import ScoredConfig

N_SHOTS = 5
Shots = Mapping[str, tuple[Message, ...]]  # user and assistant messages by config name


def read_shots(path: Path, configs: Sequence[ScoredConfig]) -> dict[str, tuple[Message, ...]]:
    """Read the examples of each config from JSONL rows with `config` (its name), `prompt` and `reply`.

    Raises:
        InputError: a row lacks a key, or a config does not have five examples.
    """
    shots: dict[str, list[Message]] = {config.name: [] for config in configs}
    for number, row in enumerate(read_jsonl(path), start=1):
        require_keys(row, ("config",), where=f"{path} row {number}")
        messages, reply = reply_of(row, where=f"{path} row {number}")
        if row["config"] in shots:
            shots[row["config"]] += [*messages, {"role": "assistant", "content": reply}]
    for name, turns in shots.items():
        if len(turns) != 2 * N_SHOTS:
            raise InputError(f"{path} should contain {N_SHOTS} examples for config {name}, found {len(turns) // 2}")
    return {name: tuple(turns) for name, turns in shots.items()}
