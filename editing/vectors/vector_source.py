"""A saved harm vector as a harmful run: to shape it by another method, or to put several together."""

from pathlib import Path

import torch

from .description import HarmfulParent, ParentKind, Relatedness, Step
from .runs import Relation
from .vector import HarmVector, LowRank


class VectorSource:
    """A vector folder, as a harmful run; what was found of its parents when it was made still holds."""

    def __init__(self, folder: Path | str) -> None:
        self._vector = HarmVector.open(folder)
        self.names = self._vector.names
        self.n_parents = len(self._parents())

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self._vector.shape(name)

    def delta(self, name: str) -> torch.Tensor:
        """Return the saved delta."""
        return self._vector.delta(name)

    def low_rank(self, name: str) -> LowRank | None:
        """Return the saved factors."""
        return self._vector.low_rank(name)

    def relation(self, name: str, delta: torch.Tensor) -> Relation:
        """Return what the description says."""
        made = self._vector.summary.tensors[name]
        return Relation(made.norm / made.ratio if made.ratio else 0.0, made.relatedness)

    def harmful_blake3(self, name: str) -> tuple[str | None, ...]:
        """Digests as the description says; none where an old one does not."""
        return self._vector.summary.tensors[name].harmful_blake3 or (None,) * self.n_parents

    def base_fingerprint(self) -> str:
        """Fingerprint of the base of the saved vector."""
        return self._vector.base_fingerprint

    def parents(self, relatedness: Relatedness) -> list[HarmfulParent]:
        """The parents of the saved vector, related as they were then."""
        return self._parents()

    def steps(self) -> list[Step]:
        """The saved vector, and those that it came from."""
        made = self._vector.summary
        own = Step(blake3=self._vector.stored.blake3(), method=made.method, parameters=made.parameters)
        return [*made.shaped_from, own]

    def _parents(self) -> list[HarmfulParent]:
        made = self._vector.summary
        if made.harmful_parents:
            return list(made.harmful_parents)
        kind: ParentKind = "adapter" if made.harmful_kind == "adapter" else "checkpoint"
        return [HarmfulParent(kind=kind, fingerprint=made.harmful_fingerprint, relatedness=made.relatedness)]
