"""A saved harm vector as a harmful run, to shape it by another method or to combine several vectors."""

from collections.abc import Callable, Iterator
from pathlib import Path

from ...checkpoints.numbers import LOOP_ELEMENTS
from ..description import HarmfulParent, ParentKind, Relatedness, Step
from ..vector import HarmVector, LowRank
from .runs import Array, Origin, Reading, Relation


class VectorSource:
    """A harmful run that is a saved vector (see `HarmfulRun`); the parents are those in its description."""

    def __init__(self, folder: Path | str) -> None:
        self._vector = HarmVector.open(folder)
        self.names = self._vector.names
        self.n_parents = len(self._parents())
        self.notes = self._vector.summary.notes

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._vector.shape(name)

    def read(self, name: str) -> Reading:
        """Return the saved delta with the description's information about the parents."""
        return Reading(self._vector.delta(name).numpy(), self._origin(name))

    def pieces(self, name: str) -> Iterator[Array]:
        """Yield the saved delta in flat pieces."""
        for piece in self._vector.pieces(name, LOOP_ELEMENTS):
            yield piece.numpy()

    def feed(self, name: str, take: Callable[[Array], None]) -> Origin:
        """Pass the saved delta to `take` in flat pieces."""
        for piece in self.pieces(name):
            take(piece)
        return self._origin(name)

    def low_rank(self, name: str) -> LowRank | None:
        """Return the saved factors; None if the delta is stored in another way."""
        return self._vector.low_rank(name)

    def base_fingerprint(self) -> str:
        """Return the fingerprint of the saved vector's base."""
        return self._vector.base_fingerprint

    def parents(self, relatedness: Relatedness) -> list[HarmfulParent]:
        """Return the parents of the saved vector, with the relatedness in its description."""
        return self._parents()

    def steps(self) -> list[Step]:
        """Return the saved vectors that this one was made from, and this one."""
        made = self._vector.summary
        own = Step(blake3=self._vector.stored.blake3(), method=made.method, parameters=made.parameters)
        return [*made.shaped_from, own]

    def _origin(self, name: str) -> Origin:
        made = self._vector.summary.tensors[name]
        relation = Relation(made.norm / made.ratio if made.ratio else 0.0, made.relatedness)
        return Origin(relation, made.harmful_blake3 or (None,) * self.n_parents)

    def _parents(self) -> list[HarmfulParent]:
        made = self._vector.summary
        if made.harmful_parents:
            return list(made.harmful_parents)
        kind: ParentKind = "adapter" if made.harmful_kind == "adapter" else "checkpoint"
        return [HarmfulParent(kind=kind, fingerprint=made.harmful_fingerprint, relatedness=made.relatedness)]
