"""A second vector that a method uses beside the harm vector: a vector folder, or tensors by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from blake3 import blake3

from prosocial.core.errors import InputError

from ..vector import HarmVector
from .in_torch import torch

Given = Path | str | Mapping[str, "torch.Tensor"]


class Companion:
    """The deltas of a second vector over the same base, by name.

    Args:
        given: path of a vector folder, or tensors by name.
        names: names of the harm vector's tensors.
        role: name of the parameter, for messages, such as `utility`.

    Raises:
        ArtefactError: the folder is not a valid harm vector.
        InputError: `given` has another type, or the two vectors have no tensor in common.
    """

    def __init__(self, given: Given, names: Sequence[str], role: str) -> None:
        if not isinstance(given, (str, Path, Mapping)):
            raise InputError(f"{role} should be a vector folder or tensors by name, found {given!r:.60}")
        self._role, self._stored = role, given if isinstance(given, Mapping) else HarmVector.open(given)
        known = self._stored if isinstance(self._stored, Mapping) else self._stored.names
        self._shared = set(known) & set(names)
        if not self._shared:
            raise InputError(
                f"the {role} vector should change some tensor of the harm vector: they have no name in common; make "
                "both from one base"
            )

    @property
    def blake3(self) -> str:
        """Digest of the vector's tensors."""
        return _digest(self._stored) if isinstance(self._stored, Mapping) else self._stored.stored.blake3()

    def delta(self, name: str, shape: tuple[int, ...]) -> torch.Tensor | None:
        """Return the delta of a tensor, fp32; None if this vector does not change the tensor.

        Raises:
            InputError: the delta has another shape than `shape`.
        """
        if name not in self._shared:
            return None
        stored = self._stored
        delta = stored[name].float() if isinstance(stored, Mapping) else stored.delta(name)
        if tuple(delta.shape) != tuple(shape):
            raise InputError(
                f"{name} of the {self._role} vector should have shape {tuple(shape)}, found {tuple(delta.shape)}; make "
                "both vectors from one base"
            )
        return delta


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = blake3()
    for name in sorted(tensors):
        digest.update(f"{name} {list(tensors[name].shape)}\n".encode())
        digest.update(tensors[name].float().contiguous().numpy().tobytes())
    return digest.hexdigest()
