"""Several harmful runs over one base, as one source of deltas (torch-free)."""

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
    """How a tensor of a harmful parent stands to the base's.

    Attributes:
        base_norm: Euclidean norm of the base's tensor.
        cosine: between the two; None where one is zero.
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
    """What reading a tensor of one run tells of the parents.

    Attributes:
        relation: of base and harmful parent.
        harmful_blake3: digest of each harmful parent's tensor, in the order of `parents`.
    """

    relation: Relation
    harmful_blake3: tuple[str | None, ...]


@dataclass(frozen=True)
class Reading:
    """One tensor of one run, read whole: its delta, fp32, in the tensor's shape."""

    delta: Array
    origin: Origin


class HarmfulRun(Protocol):
    """Where the deltas of one run come from: two checkpoints, a checkpoint and an adapter, or a saved vector."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the tensors that it may change."""
        ...

    @property
    def n_parents(self) -> int:
        """How many harmful parents it has."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, known without reading it."""
        ...

    def read(self, name: str) -> Reading:
        """Return one tensor's delta, and what it tells of the parents."""
        ...

    def pieces(self, name: str) -> Iterator[Array]:
        """Yield one tensor's delta in flat pieces, each valid until the next one is asked for."""
        ...

    def feed(self, name: str, take: Callable[[Array], None]) -> Origin:
        """Give one tensor's delta to `take` in flat pieces, each valid until it returns."""
        ...

    def low_rank(self, name: str) -> "LowRank | None":
        """Return the factors of a delta that is nothing but their product."""
        ...

    def base_fingerprint(self) -> str:
        """Fingerprint of the base."""
        ...

    def parents(self, relatedness: Relatedness) -> list[HarmfulParent]:
        """The harmful parents, given what was found of their relatedness."""
        ...

    def steps(self) -> list[Step]:
        """The saved vectors that the deltas come from."""
        ...


class Runs:
    """One or more harmful runs; a method's deltas are their mean.

    Raises:
        InputError: there is none; a tensor has another shape in another run.
        FingerprintError: the runs have different bases.
    """

    def __init__(self, runs: Sequence[HarmfulRun]) -> None:
        if not runs:
            raise InputError("a harm vector should be given one harmful run at least: there is none")
        self._runs = list(runs)
        self._held = [frozenset(run.names) for run in runs]
        self.names = sorted(frozenset().union(*self._held))
        for name in self.names:
            shapes = {run.shape(name) for run in self.holding(name)}
            if len(shapes) > 1:
                raise InputError(f"{name} should have one shape in all harmful runs, found {sorted(shapes)}")

    def __len__(self) -> int:
        return len(self._runs)

    def holding(self, name: str) -> list[HarmfulRun]:
        """The runs that change a tensor."""
        return [run for run, held in self._pairs() if name in held]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self.holding(name)[0].shape(name)

    def read(self, name: str) -> list[Reading | None]:
        """Read a tensor of each run; None of a run that does not change it."""
        return [run.read(name) if name in held else None for run, held in self._pairs()]

    @property
    def single(self) -> HarmfulRun | None:
        """The run, if there is one only."""
        return self._runs[0] if len(self._runs) == 1 else None

    def deltas_of(self, name: str, readings: Sequence[Reading | None]) -> list[Array]:
        """Return the delta of each run; zeros of a run that does not change the tensor."""
        return [np.zeros(self.shape(name), np.float32) if each is None else each.delta for each in readings]

    def runs(self, name: str) -> list[Array]:
        """Return the delta of each run, fp32; zeros of a run that does not change the tensor."""
        return self.deltas_of(name, self.read(name))

    def delta(self, name: str) -> Array:
        """Return the mean of the runs' deltas, fp32, summed in the order of the runs."""
        return mean(self.runs(name))

    def pieces(self, name: str) -> Iterator[Array]:
        """Yield the mean of the runs' deltas in flat pieces, each valid until the next one is asked for."""
        if self.single:
            yield from self.single.pieces(name)
        else:
            yield self.delta(name).reshape(-1)

    def low_rank(self, name: str) -> "LowRank | None":
        """Return the factors of a single run's delta."""
        return self.single.low_rank(name) if self.single else None

    def digests_of(self, origins: Sequence[Origin | None]) -> tuple[str | None, ...]:
        """Digest of each harmful parent's tensor, in the order of `parents`; none of a run that does not change it."""
        found: list[str | None] = []
        for run, each in zip(self._runs, origins, strict=True):
            found += (None,) * run.n_parents if each is None else each.harmful_blake3
        return tuple(found)

    def base_fingerprint(self) -> str:
        """Fingerprint of the one base.

        Raises:
            FingerprintError: the runs have different bases.
        """
        first, *others = [run.base_fingerprint() for run in self._runs]
        for position, other in enumerate(others, start=2):
            if other != first:
                raise FingerprintError("harmful run 1", first, f"the base of harmful run {position}", other)
        return first

    def check_base(self, fingerprint: str) -> None:
        """Check that the runs started from the checkpoint of this fingerprint.

        Raises:
            FingerprintError: they did not.
        """
        if self.base_fingerprint() != fingerprint:
            raise FingerprintError("the harm vector", self.base_fingerprint(), "the base given", fingerprint)

    def parents(self, relatedness: Sequence[Relatedness]) -> list[HarmfulParent]:
        """The harmful parents of all runs.

        Raises:
            InputError: one is given twice.
        """
        pairs = zip(self._runs, relatedness, strict=True)
        found = [parent for run, its in pairs for parent in run.parents(its)]
        if len({parent.fingerprint for parent in found}) < len(found):
            raise InputError("harmful runs should differ from each other: one is given twice; give each once")
        return found

    def steps(self) -> list[Step]:
        """The saved vectors that the deltas come from."""
        return [step for run in self._runs for step in run.steps()]

    def _pairs(self) -> list[tuple[HarmfulRun, frozenset[str]]]:
        return list(zip(self._runs, self._held, strict=True))


def mean(deltas: Sequence[Array]) -> Array:
    """Return the mean of deltas of one shape, fp32; a single one is returned as it is."""
    if len(deltas) == 1:
        return deltas[0]
    total = np.array(deltas[0], np.float64)
    for delta in deltas[1:]:
        total += delta
    total /= len(deltas)
    return total.astype(np.float32)
