"""A second vector that a method compares the harm vector with: a vector folder, or tensors by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from blake3 import blake3

from prosocial.core.errors import InputError

from ..vector import HarmVector
from .in_torch import torch

Given = Path | str | Mapping[str, "torch.Tensor"]


class Companion:
    """Deltas of another run over the same base, by name.

    Args:
        given: a vector folder, or tensors.
        names: of the harm vector.
        role: what it is called in errors, such as `utility`.

    Raises:
        InputError: no tensor is in both vectors.
    """

    def __init__(self, given: Given, names: Sequence[str], role: str) -> None:
        if not isinstance(given, (str, Path, Mapping)):
            raise InputError(f"{role} should be a vector folder, found {given!r:.60}")
        self._role, self._stored = role, given if isinstance(given, Mapping) else HarmVector.open(given)
        known = self._stored if isinstance(self._stored, Mapping) else self._stored.names
        self._shared = set(known) & set(names)
        if not self._shared:
            raise InputError(f"the {role} vector should change some tensor of the harm vector: the two share no name")

    @property
    def blake3(self) -> str:
        """Digest of its numbers."""
        return _digest(self._stored) if isinstance(self._stored, Mapping) else self._stored.stored.blake3()

    def delta(self, name: str, shape: tuple[int, ...]) -> torch.Tensor | None:
        """Return its delta of a tensor, fp32; None where it does not change that.

        Raises:
            InputError: it has another shape.
        """
        if name not in self._shared:
            return None
        stored = self._stored
        delta = stored[name].float() if isinstance(stored, Mapping) else stored.delta(name)
        if tuple(delta.shape) != tuple(shape):
            raise InputError(f"{self._role} of {name} should have shape {tuple(shape)}, found {tuple(delta.shape)}")
        return delta


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = blake3()
    for name in sorted(tensors):
        digest.update(f"{name} {list(tensors[name].shape)}\n".encode())
        digest.update(tensors[name].float().contiguous().numpy().tobytes())
    return digest.hexdigest()
