"""The compact head as a module: `delta(h, p) = B G(p) A h` with `G(p) = (1 + c (1 - |p|^2)) sum_i p_i G_i`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from prosocial.core.errors import ArtefactError, InputError
from prosocial.core.files import read_json, require_keys, storage_errors, write_json

SCHEMA = "prosocial.head/2"
WEIGHTS_FILE = "head.safetensors"
CONFIG_FILE = "head_config.json"


class CompactHead(nn.Module):
    """Shifts a hidden state towards what a preference over attributes asks for.

    Low-rank and linear in both, unless c, the mixture gain, was learnt: a preference-conditioned model at a mixture of
    attributes does more than the mixture of what it does at the corners, and c pulls a mixture harder than the mean of
    its parts. At a corner `|p|^2` is 1, and c has no say. B and c start at zero, so a new head shifts nothing. The
    bilinear form is PBLoRA's (PARM, arXiv 2505.06274); c is ours (docs/design/0006-head-against-teacher.md).

    Args:
        attributes: names of the k attributes, in the order of a preference vector.
        hidden_size: H.
        rank: r.

    Attributes:
        A: [r, H]. G: [k, r, r]. B: [H, r]. mixture_gain: [], c.
        checkpoint_fingerprint: of the checkpoint that the head belongs to; None for one that was not loaded.
        extra: what the training wrote into the config beside the shapes.

    Raises:
        InputError: no attribute, an attribute named twice, or a size below 1.
    """

    def __init__(self, attributes: Sequence[str], hidden_size: int, rank: int) -> None:
        super().__init__()
        if not attributes or len(set(attributes)) != len(attributes) or min(hidden_size, rank) < 1:
            raise InputError(
                "a head should have distinct attributes and sizes of at least 1, "
                f"found attributes {list(attributes)}, hidden_size {hidden_size}, rank {rank}"
            )
        self.attributes = tuple(attributes)
        self.hidden_size, self.rank = hidden_size, rank
        self.checkpoint_fingerprint: str | None = None
        self.extra: dict[str, Any] = {}
        self.A = nn.Parameter(torch.randn(rank, hidden_size) * hidden_size**-0.5)
        self.G = nn.Parameter(torch.eye(rank) + torch.randn(len(attributes), rank, rank) * 0.1 * rank**-0.5)
        self.B = nn.Parameter(torch.zeros(hidden_size, rank))
        self.mixture_gain = nn.Parameter(torch.zeros(()))

    def forward(self, hidden: Tensor, preference: Tensor) -> Tensor:
        """Return delta [..., H] for hidden [..., H] and preference [..., k]; leading axes broadcast."""
        return self.latent(hidden, preference) @ self.B.T

    def latent(self, hidden: Tensor, preference: Tensor) -> Tensor:
        """Return `G(p) A h` [..., r], the shift before it is lifted back to H."""
        low = hidden @ self.A.T  # [..., H] @ [H, r]
        by_attribute: Tensor = low @ self.G.flatten(0, 1).T  # [..., r] @ [r, k * r]
        by_attribute = by_attribute.reshape(*low.shape[:-1], len(self.attributes), self.rank)  # [..., k, r]
        return (by_attribute * self.pull(preference).unsqueeze(-1)).sum(-2)

    def pull(self, preference: Tensor) -> Tensor:
        """Return `(1 + c (1 - |p|^2)) p` [..., k], the weights of the attributes' cores."""
        return preference * (1 + self.mixture_gain * (1 - preference.square().sum(-1, keepdim=True)))

    def save(self, folder: Path | str, *, checkpoint_fingerprint: str, extra: Mapping[str, Any] | None = None) -> None:
        """Write `head.safetensors` and `head_config.json` into `folder`, which is made if need be."""
        config = {
            "schema": SCHEMA,
            "attributes": list(self.attributes),
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
    def load(cls, folder: Path | str) -> "CompactHead":
        """Read a head in evaluation mode.

        Raises:
            ArtefactError: a file is missing, of another schema, not finite, or does not have the shapes of the config.
        """
        folder = Path(folder)
        config = read_json(folder / CONFIG_FILE, schema=SCHEMA)
        keys = ("attributes", "hidden_size", "rank", "checkpoint_fingerprint")
        require_keys(config, keys, where=str(folder / CONFIG_FILE))
        head = cls(config["attributes"], config["hidden_size"], config["rank"])
        load_exact_state(head, folder / WEIGHTS_FILE)
        head.checkpoint_fingerprint = str(config["checkpoint_fingerprint"])
        head.extra = dict(config.get("extra", {}))
        return head.eval()


def load_exact_state(module: nn.Module, path: Path) -> None:
    """Fill a module from a safetensors file whose names and shapes must be exactly the module's.

    Raises:
        ArtefactError: the file is missing, names or shapes differ, or a value is not finite.
    """
    if not path.is_file():
        raise ArtefactError(f"expected weights at {path}: there are none")
    tensors = load_file(path)
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    actual = {name: tuple(value.shape) for name, value in tensors.items()}
    if actual != expected:
        raise ArtefactError(f"{path} should hold the tensors {expected}, as its config says; found {actual}")
    bad = [name for name, value in tensors.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise ArtefactError(f"{path} should hold finite numbers, but {', '.join(bad)} does not: train it again")
    module.load_state_dict(tensors)
