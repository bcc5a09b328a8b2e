"""The compact head as a torch module: `delta(h, p) = B G(p) A h` with `G(p) = (1 + c (1 - |p|^2)) sum_i p_i G_i`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from prosocial.core.contents import read_as
from prosocial.core.errors import ArtefactError, InputError
from prosocial.core.files import read_json, require_keys, storage_errors, write_json

SCHEMA = "prosocial.head/2"
WEIGHTS_FILE = "head.safetensors"
CONFIG_FILE = "head_config.json"


class CompactHead(nn.Module):
    """Computes the low-rank shift of a hidden state for a preference over attributes.

    The shift is linear in the hidden state, and linear in the preference where the mixture gain c is 0. A
    preference-conditioned teacher shifts more at a mixture of attributes than the weighted mean of its shifts at the
    single attributes; a learnt c > 0 models this. At a single attribute `|p|^2` is 1, so that c has no effect. B and c
    start at zero: an untrained head shifts nothing.

    Source: the bilinear form is PBLoRA's (PARM, arXiv 2505.06274); c is ours
    (docs/design/0006-head-against-teacher.md).

    Args:
        attributes: names of the k attributes, in the order of a preference vector.
        hidden_size: H, size of the last hidden state.
        rank: r, rank of the shift.

    Attributes:
        A: [r, H], down projection.
        G: [k, r, r], one core matrix per attribute.
        B: [H, r], up projection.
        mixture_gain: c, a scalar tensor.
        checkpoint_fingerprint: fingerprint of the checkpoint that the head was trained for; None before `load`.
        extra: further entries that training wrote into the config.

    Raises:
        InputError: there is no attribute, an attribute appears twice, or a size is below 1.

    Examples:
        >>> head = CompactHead(["empathy", "truthfulness"], hidden_size=8, rank=2)
        >>> head(torch.zeros(3, 8), torch.tensor([[0.5, 0.5]])).shape
        torch.Size([3, 8])
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
        """Return the shift delta [..., H] of hidden [..., H] for preference [..., k]; leading axes broadcast."""
        return self.latent(hidden, preference) @ self.B.T

    def latent(self, hidden: Tensor, preference: Tensor) -> Tensor:
        """Return `G(p) A h` [..., r], the shift before the up projection B."""
        low = hidden @ self.A.T  # [..., H] @ [H, r]
        by_attribute: Tensor = low @ self.G.flatten(0, 1).T  # [..., r] @ [r, k * r]
        by_attribute = by_attribute.reshape(*low.shape[:-1], len(self.attributes), self.rank)  # [..., k, r]
        return (by_attribute * self.pull(preference).unsqueeze(-1)).sum(-2)

    def pull(self, preference: Tensor) -> Tensor:
        """Return `(1 + c (1 - |p|^2)) p` [..., k], the weights of the core matrices G_i."""
        return preference * (1 + self.mixture_gain * (1 - preference.square().sum(-1, keepdim=True)))

    def save(self, folder: Path | str, *, checkpoint_fingerprint: str, extra: Mapping[str, Any] | None = None) -> None:
        """Write `head.safetensors` and `head_config.json` into `folder`, creating it if it does not exist.

        Raises:
            StorageError: the files cannot be written.
        """
        config = {
            "schema": SCHEMA,
            "attributes": list(self.attributes),
            "hidden_size": self.hidden_size,
            "rank": self.rank,
            "checkpoint_fingerprint": checkpoint_fingerprint,
            "extra": dict(extra or {}),
        }
        save_state(self, Path(folder) / WEIGHTS_FILE)
        write_json(Path(folder) / CONFIG_FILE, config)

    @classmethod
    def load(cls, folder: Path | str) -> "CompactHead":
        """Return the head saved in `folder`, in evaluation mode.

        Raises:
            ArtefactError: a file is missing, the schema differs, a tensor is not finite, or its shape differs from the
                config's.
        """
        folder = Path(folder)
        config = read_json(folder / CONFIG_FILE, schema=SCHEMA)
        keys = ("attributes", "hidden_size", "rank", "checkpoint_fingerprint")
        require_keys(config, keys, where=str(folder / CONFIG_FILE))
        with read_as("the config of a head", folder / CONFIG_FILE), torch.device("meta"):  # allocates nothing yet
            head = cls(config["attributes"], config["hidden_size"], config["rank"])
            head.checkpoint_fingerprint = str(config["checkpoint_fingerprint"])
            head.extra = dict(config.get("extra", {}))
        load_exact_state(head, folder / WEIGHTS_FILE)
        return head.eval()


def save_state(module: nn.Module, path: Path) -> None:
    """Write a module's tensors as float32 to a safetensors file, creating its folder if it does not exist.

    Raises:
        StorageError: the file cannot be written.
    """
    tensors = {name: value.detach().float().contiguous().cpu() for name, value in module.state_dict().items()}
    with storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path)


def load_exact_state(module: nn.Module, path: Path) -> None:
    """Load a safetensors file into a module; tensor names and shapes must match the module's exactly.

    Raises:
        ArtefactError: the file is missing, a name or shape differs, or a value is not finite.
    """
    if not path.is_file():
        raise ArtefactError(f"expected weights at {path}, found no such file: train or copy them there")
    try:
        tensors = {name: value.float() for name, value in load_file(path).items()}
    except (SafetensorError, RuntimeError) as error:
        raise ArtefactError(f"{path} should be a safetensors file: {error}; train it again") from None
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    actual = {name: tuple(value.shape) for name, value in tensors.items()}
    if actual != expected:
        raise ArtefactError(
            f"{path} should hold tensors of the shapes in its config, {expected}, found {actual}: train it again"
        )
    bad = [name for name, value in tensors.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise ArtefactError(f"{path} should hold finite numbers, found NaN or infinity in {', '.join(bad)}")
    module.load_state_dict(tensors, assign=True)
