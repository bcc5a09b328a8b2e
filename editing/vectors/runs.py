"""Several harmful runs over one base, as one source of deltas."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from ..errors import FingerprintError, InputError
from .description import HarmfulParent, Relatedness, Step
from .vector import LowRank


@dataclass(frozen=True)
class Relation:
    """How a tensor of a harmful parent stands to the base's.

    Attributes:
        base_norm: Euclidean norm of the base's tensor.
        cosine: between the two; None where one is zero.
    """

    base_norm: float
    cosine: float | None


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

    def delta(self, name: str) -> torch.Tensor:
        """Return one tensor's delta, fp32."""
        ...

    def low_rank(self, name: str) -> LowRank | None:
        """Return the factors of a delta that is nothing but their product."""
        ...

    def relation(self, name: str, delta: torch.Tensor) -> Relation:
        """Relate base and harmful parent, given the run's delta."""
        ...

    def harmful_blake3(self, name: str) -> tuple[str | None, ...]:
        """Digest of each harmful parent's tensor."""
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

    def runs(self, name: str) -> list[torch.Tensor]:
        """Return the delta of each run, fp32; zeros of a run that does not change the tensor."""
        shape = self.shape(name)
        return [run.delta(name) if name in held else torch.zeros(shape) for run, held in self._pairs()]

    def delta(self, name: str) -> torch.Tensor:
        """Return the mean of the runs' deltas, fp32, summed in the order of the runs."""
        return mean(self.runs(name))

    def low_rank(self, name: str) -> LowRank | None:
        """Return the factors of a single run's delta."""
        return self._runs[0].low_rank(name) if len(self._runs) == 1 else None

    def relations(self, name: str, deltas: Sequence[torch.Tensor]) -> list[Relation | None]:
        """Relate base and parent for each run, given their deltas; None of a run that does not change the tensor."""
        pairs = zip(self._pairs(), deltas, strict=True)
        return [run.relation(name, delta) if name in held else None for (run, held), delta in pairs]

    def harmful_blake3(self, name: str) -> tuple[str | None, ...]:
        """Digest of each harmful parent's tensor, in the order of `parents`; none of a run that does not change it."""
        found: list[str | None] = []
        for run, held in self._pairs():
            found += run.harmful_blake3(name) if name in held else (None,) * run.n_parents
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


def mean(deltas: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the mean of deltas of one shape, fp32; a single one is returned as it is."""
    if len(deltas) == 1:
        return deltas[0]
    total = deltas[0].double()
    for delta in deltas[1:]:
        total += delta
    return (total / len(deltas)).float()
