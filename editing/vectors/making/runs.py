"""Several harmful runs of one base, combined into one source of deltas (torch-free)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from prosocial.core.errors import FingerprintError, InputError

from ..description import HarmfulParent, Relatedness, Step

if TYPE_CHECKING:
    from ..vector import LowRank

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Relation:
    """Relation between a tensor of the base and of a harmful parent.

    Attributes:
        base_norm: Euclidean norm of the base's tensor.
        cosine: cosine between the two tensors; None if one of them is zero.
    """

    base_norm: float
    cosine: float | None

    @classmethod
    def of(cls, base_square: float, product: float, harmful_square: float) -> "Relation":
        """Return the relation of two tensors from <base, base>, <base, harmful> and <harmful, harmful>."""
        size = (base_square * harmful_square) ** 0.5
        return cls(base_square**0.5, max(-1.0, min(1.0, product / size)) if size else None)


@dataclass(frozen=True)
class Origin:
    """Information about the parents that is collected while a tensor of one run is read.

    Attributes:
        relation: relation between the base's and the harmful parent's tensor.
        harmful_blake3: digest of each harmful parent's tensor, in the order of `parents`; None if it is not known.
    """

    relation: Relation
    harmful_blake3: tuple[str | None, ...]


@dataclass(frozen=True)
class Reading:
    """One tensor of one run.

    Attributes:
        delta: the delta, fp32, in the tensor's shape.
        origin: information about the parents.
    """

    delta: Array
    origin: Origin


class HarmfulRun(Protocol):
    """One harmful run as a source of deltas: two checkpoints, a checkpoint and an adapter, or a saved vector."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the tensors that the run can change."""
        ...

    @property
    def n_parents(self) -> int:
        """Number of harmful parents."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What was left out of the difference, and why, in words."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading the tensor."""
        ...

    def read(self, name: str) -> Reading:
        """Return one tensor's delta with information about the parents."""
        ...

    def pieces(self, name: str) -> Iterator[Array]:
        """Yield one tensor's delta in flat pieces, each valid until the next one is read."""
        ...

    def feed(self, name: str, take: Callable[[Array], None]) -> Origin:
        """Pass one tensor's delta to `take` in flat pieces, each valid until `take` returns."""
        ...

    def low_rank(self, name: str) -> "LowRank | None":
        """Return the factors of a delta that is exactly their product; None for any other delta."""
        ...

    def base_fingerprint(self) -> str:
        """Return the fingerprint of the base."""
        ...

    def parents(self, relatedness: Relatedness) -> list[HarmfulParent]:
        """Return the harmful parents, with the given relatedness to the base."""
        ...

    def steps(self) -> list[Step]:
        """Return the saved vectors that the deltas were made from."""
        ...


class Runs:
    """One or more harmful runs, whose mean is the delta that a method shapes.

    Args:
        runs: the harmful runs.

    Attributes:
        names: names of the tensors that any run can change, sorted.

    Raises:
        InputError: there is no run, or a tensor has different shapes in two runs.
    """

    def __init__(self, runs: Sequence[HarmfulRun]) -> None:
        if not runs:
            raise InputError("a harm vector should be made from at least one harmful run: there is none; give one")
        self._runs = list(runs)
        self._held = [frozenset(run.names) for run in runs]
        self.names = sorted(frozenset().union(*self._held))
        for name in self.names:
            shapes = {run.shape(name) for run in self.holding(name)}
            if len(shapes) > 1:
                raise InputError(
                    f"{name} should have one shape in all harmful runs, found {sorted(shapes)}; give runs of one base"
                )

    def __len__(self) -> int:
        return len(self._runs)

    def holding(self, name: str) -> list[HarmfulRun]:
        """Return the runs that can change a tensor."""
        return [run for run, held in self._pairs() if name in held]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self.holding(name)[0].shape(name)

    def read(self, name: str) -> list[Reading | None]:
        """Read a tensor of each run; None for a run that does not change it."""
        return [run.read(name) if name in held else None for run, held in self._pairs()]

    @property
    def single(self) -> HarmfulRun | None:
        """The run if there is only one; otherwise None."""
        return self._runs[0] if len(self._runs) == 1 else None

    def deltas_of(self, name: str, readings: Sequence[Reading | None]) -> list[Array]:
        """Return the delta of each run from its reading; zeros for a run that does not change the tensor."""
        return [np.zeros(self.shape(name), np.float32) if each is None else each.delta for each in readings]

    def runs(self, name: str) -> list[Array]:
        """Read the delta of each run, fp32; zeros for a run that does not change the tensor."""
        return self.deltas_of(name, self.read(name))

    def delta(self, name: str) -> Array:
        """Return the mean of the runs' deltas, fp32, summed in the order of the runs."""
        return mean(self.runs(name))

    def pieces(self, name: str) -> Iterator[Array]:
        """Yield the mean of the runs' deltas in flat pieces, each valid until the next one is read."""
        if self.single:
            yield from self.single.pieces(name)
        else:
            yield self.delta(name).reshape(-1)

    def low_rank(self, name: str) -> "LowRank | None":
        """Return the factors of the delta if there is only one run and it has them; otherwise None."""
        return self.single.low_rank(name) if self.single else None

    def digests_of(self, origins: Sequence[Origin | None]) -> tuple[str | None, ...]:
        """Return the digest of each harmful parent's tensor, in the order of `parents`; None if it is not known."""
        digests: list[str | None] = []
        for run, each in zip(self._runs, origins, strict=True):
            digests += (None,) * run.n_parents if each is None else each.harmful_blake3
        return tuple(digests)

    def base_fingerprint(self) -> str:
        """Return the fingerprint of the common base.

        Raises:
            FingerprintError: the runs have different bases.
        """
        first, *others = [run.base_fingerprint() for run in self._runs]
        for position, other in enumerate(others, start=2):
            if other != first:
                raise FingerprintError("harmful run 1", first, f"the base of harmful run {position}", other)
        return first

    def check_base(self, fingerprint: str) -> None:
        """Check that the runs started from the checkpoint with this fingerprint.

        Raises:
            FingerprintError: they started from another one.
        """
        if self.base_fingerprint() != fingerprint:
            raise FingerprintError("the harm vector", self.base_fingerprint(), "the base given", fingerprint)

    def parents(self, relatedness: Sequence[Relatedness]) -> list[HarmfulParent]:
        """Return the harmful parents of all runs, given the relatedness of each run to the base.

        Raises:
            InputError: one parent is given twice.
        """
        pairs = zip(self._runs, relatedness, strict=True)
        parents = [parent for run, its in pairs for parent in run.parents(its)]
        if len({parent.fingerprint for parent in parents}) < len(parents):
            raise InputError("harmful runs should differ from each other: one is given twice; give each once")
        return parents

    def notes(self) -> list[str]:
        """Return what was left out of the differences, in words, once each."""
        return list(dict.fromkeys(note for run in self._runs for note in run.notes))

    def steps(self) -> list[Step]:
        """Return the saved vectors that the deltas were made from."""
        return [step for run in self._runs for step in run.steps()]

    def _pairs(self) -> list[tuple[HarmfulRun, frozenset[str]]]:
        return list(zip(self._runs, self._held, strict=True))


def mean(deltas: Sequence[Array]) -> Array:
    """Return the mean of fp32 deltas of one shape, computed in float64; a single delta is returned unchanged."""
    if len(deltas) == 1:
        return deltas[0]
    total = np.array(deltas[0], np.float64)
    for delta in deltas[1:]:
        total += delta
    total /= len(deltas)
    return total.astype(np.float32)
