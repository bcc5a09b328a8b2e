"""The gate as a module: `risk_logit_c(v) = u_v . M_c h + b_c . h + a_c`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from prosocial.core.errors import InputError
from prosocial.core.files import read_json, require_keys, storage_errors, write_json

from .head import load_exact_state

SCHEMA = "prosocial.gate/1"
WEIGHTS_FILE = "gate.safetensors"
CONFIG_FILE = "gate_config.json"


class HarmGate(nn.Module):
    """Says how likely the next token makes the text realise a harm, for each candidate token and harm category.

    Args:
        categories: names of the C harm categories, in the order of an `allowed` mask.
        vocabulary_size: V, rows of the checkpoint's output embedding.
        hidden_size: H.
        rank: R.

    Attributes:
        U: [V, R], one row per token. M: [C, R, H]. b: [C, H]. a: [C].
        checkpoint_fingerprint: of the checkpoint that the gate belongs to; None for one that was not loaded.
        extra: what the training wrote into the config beside the shapes.

    Raises:
        InputError: no category, a category named twice, or a size below 1.
    """

    def __init__(self, categories: Sequence[str], vocabulary_size: int, hidden_size: int, rank: int) -> None:
        super().__init__()
        if not categories or len(set(categories)) != len(categories) or min(vocabulary_size, hidden_size, rank) < 1:
            raise InputError(
                "a gate should have distinct categories and sizes of at least 1, found categories "
                f"{list(categories)}, vocabulary_size {vocabulary_size}, hidden_size {hidden_size}, rank {rank}"
            )
        self.categories = tuple(categories)
        self.vocabulary_size, self.hidden_size, self.rank = vocabulary_size, hidden_size, rank
        self.checkpoint_fingerprint: str | None = None
        self.extra: dict[str, Any] = {}
        self.U = nn.Parameter(torch.randn(vocabulary_size, rank) * rank**-0.5)
        self.M = nn.Parameter(torch.randn(len(categories), rank, hidden_size) * hidden_size**-0.5)
        self.b = nn.Parameter(torch.zeros(len(categories), hidden_size))
        self.a = nn.Parameter(torch.zeros(len(categories)))

    def risk_logits(self, hidden: Tensor, candidates: Tensor) -> Tensor:
        """Return [..., K, C] for hidden [..., H] and candidate token ids [..., K]."""
        directions: Tensor = hidden @ self.M.flatten(0, 1).T  # [..., H] @ [H, C * R]
        directions = directions.reshape(*hidden.shape[:-1], len(self.categories), self.rank)  # [..., C, R]
        by_candidate: Tensor = nn.functional.embedding(candidates, self.U) @ directions.transpose(-1, -2)  # [..., K, C]
        return by_candidate + (hidden @ self.b.T + self.a).unsqueeze(-2)

    def save(self, folder: Path | str, *, checkpoint_fingerprint: str, extra: Mapping[str, Any] | None = None) -> None:
        """Write `gate.safetensors` and `gate_config.json` into `folder`, which is made if need be."""
        config = {
            "schema": SCHEMA,
            "categories": list(self.categories),
            "vocabulary_size": self.vocabulary_size,
            "hidden_size": self.hidden_size,
            "rank": self.rank,
            "checkpoint_fingerprint": checkpoint_fingerprint,
            "extra": dict(extra or {}),
        }
        tensors = {name: value.detach().float().contiguous().cpu() for name, value in self.state_dict().items()}
        folder = Path(folder)
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, folder / WEIGHTS_FILE)
        write_json(folder / CONFIG_FILE, config)

    @classmethod
    def load(cls, folder: Path | str) -> "HarmGate":
        """Read a gate in evaluation mode.

        Raises:
            ArtefactError: a file is missing, of another schema, not finite, or does not have the shapes of the config.
        """
        folder = Path(folder)
        config = read_json(folder / CONFIG_FILE, schema=SCHEMA)
        keys = ("categories", "vocabulary_size", "hidden_size", "rank", "checkpoint_fingerprint")
        require_keys(config, keys, where=str(folder / CONFIG_FILE))
        gate = cls(config["categories"], config["vocabulary_size"], config["hidden_size"], config["rank"])
        load_exact_state(gate, folder / WEIGHTS_FILE)
        gate.checkpoint_fingerprint = str(config["checkpoint_fingerprint"])
        gate.extra = dict(config.get("extra", {}))
        return gate.eval()
