"""Remove what the harm vector shares with a utility vector, tensor by tensor: tau - (<tau, u> / <u, u>) u.

Directions that carry harm and utility are entangled (arXiv 2505.14185): measure utility after every edit.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch

from ...errors import InputError
from ..statistics import inner_product
from ..vector import HarmVector
from .method import Deltas, Prepared


def remove_component(delta: torch.Tensor, utility: torch.Tensor) -> torch.Tensor:
    """Return the delta without its component along `utility`; both fp32 of one shape.

    Where the two are parallel only rounding noise is left, whose direction means nothing: zeros are returned.
    """
    square = inner_product(utility, utility)
    if square == 0:
        return delta
    left = (delta.double() - (inner_product(delta, utility) / square) * utility.double()).float()
    noise = 2.0**-22 * inner_product(delta, delta) ** 0.5
    return left if inner_product(left, left) ** 0.5 > noise else torch.zeros_like(delta)


def prepare(deltas: Deltas, *, utility: Path | str | Mapping[str, torch.Tensor]) -> Prepared:
    """Open the utility vector: a vector folder (benign minus base), or tensors by name.

    Tensors that the utility vector does not hold stay as they are.

    Raises:
        InputError: no tensor is in both vectors, or a shape differs.
    """
    if isinstance(utility, Mapping):
        stored: Deltas = _Tensors(utility)
        digest = _digest(utility)
    else:
        vector = HarmVector.open(utility)
        stored, digest = vector, vector.stored.sha256()
    shared = set(stored.names) & set(deltas.names)
    if not shared:
        raise InputError("the utility vector should change some tensor of the harm vector: the two share no name")

    def transform(name: str, delta: torch.Tensor) -> torch.Tensor:
        if name not in shared:
            return delta
        direction = stored.delta(name)
        if direction.shape != delta.shape:
            raise InputError(
                f"utility of {name} should have shape {tuple(delta.shape)}, found {tuple(direction.shape)}"
            )
        return remove_component(delta, direction)

    return Prepared(transform, {"utility_sha256": digest})


class _Tensors:
    """Tensors in memory as deltas."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = tensors
        self.names = sorted(tensors)

    def delta(self, name: str) -> torch.Tensor:
        return self._tensors[name].float()


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {list(tensors[name].shape)}\n".encode())
        digest.update(tensors[name].float().contiguous().numpy().tobytes())
    return digest.hexdigest()
