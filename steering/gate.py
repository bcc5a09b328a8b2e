"""The harm gate as a torch module: `risk_logit_c(v) = u_v . M_c h + b_c . h + a_c`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prosocial.core.contents import read_as
from prosocial.core.errors import InputError
from prosocial.core.files import read_json, require_keys, write_json

from .head import load_exact_state, save_state

SCHEMA = "prosocial.gate/1"
WEIGHTS_FILE = "gate.safetensors"
CONFIG_FILE = "gate_config.json"


class HarmGate(nn.Module):
    """Estimates the risk that a candidate token leads to a harmful text, for each candidate and harm category.

    Args:
        categories: names of the C harm categories, in the order of an `allowed` mask.
        vocabulary_size: V, number of rows of the checkpoint's output embedding.
        hidden_size: H, size of the last hidden state.
        rank: R, rank of the bilinear term.

    Attributes:
        U: [V, R], one row per token.
        M: [C, R, H], one projection per category.
        b: [C, H], weights of the term that depends on the hidden state only.
        a: [C], biases.
        checkpoint_fingerprint: fingerprint of the checkpoint that the gate was trained for; None before `load`.
        extra: further entries that training wrote into the config.

    Raises:
        InputError: there is no category, a category appears twice, or a size is below 1.

    Examples:
        >>> gate = HarmGate(["violence", "drugs"], vocabulary_size=50, hidden_size=8, rank=2)
        >>> gate.risk_logits(torch.zeros(3, 8), torch.arange(12).reshape(3, 4)).shape
        torch.Size([3, 4, 2])
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
        """Return the risk logits [..., K, C] of candidate token ids [..., K] after hidden states [..., H]."""
        directions: Tensor = hidden @ self.M.flatten(0, 1).T  # [..., H] @ [H, C * R]
        directions = directions.reshape(*hidden.shape[:-1], len(self.categories), self.rank)  # [..., C, R]
        by_candidate: Tensor = nn.functional.embedding(candidates, self.U) @ directions.transpose(-1, -2)  # [..., K, C]
        return by_candidate + (hidden @ self.b.T + self.a).unsqueeze(-2)

    def save(self, folder: Path | str, *, checkpoint_fingerprint: str, extra: Mapping[str, Any] | None = None) -> None:
        """Write `gate.safetensors` and `gate_config.json` into `folder`, creating it if it does not exist.

        Raises:
            StorageError: the files cannot be written.
        """
        config = {
            "schema": SCHEMA,
            "categories": list(self.categories),
            "vocabulary_size": self.vocabulary_size,
            "hidden_size": self.hidden_size,
            "rank": self.rank,
            "checkpoint_fingerprint": checkpoint_fingerprint,
            "extra": dict(extra or {}),
        }
        save_state(self, Path(folder) / WEIGHTS_FILE)
        write_json(Path(folder) / CONFIG_FILE, config)

    @classmethod
    def load(cls, folder: Path | str) -> "HarmGate":
        """Return the gate saved in `folder`, in evaluation mode.

        Raises:
            ArtefactError: a file is missing, the schema differs, a tensor is not finite, or its shape differs from the
                config's.
        """
        folder = Path(folder)
        config = read_json(folder / CONFIG_FILE, schema=SCHEMA)
        keys = ("categories", "vocabulary_size", "hidden_size", "rank", "checkpoint_fingerprint")
        require_keys(config, keys, where=str(folder / CONFIG_FILE))
        with read_as("the config of a gate", folder / CONFIG_FILE), torch.device("meta"):  # allocates nothing yet
            gate = cls(config["categories"], config["vocabulary_size"], config["hidden_size"], config["rank"])
            gate.checkpoint_fingerprint = str(config["checkpoint_fingerprint"])
            gate.extra = dict(config.get("extra", {}))
        load_exact_state(gate, folder / WEIGHTS_FILE)
        return gate.eval()
