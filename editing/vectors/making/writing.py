"""Writing the weights file of a vector, and collecting the summaries of its tensors."""

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prosocial.core.errors import InputError

from ...checkpoints.writer import TensorWriter
from ..description import HarmfulParent, Relatedness, Storage, TensorSummary
from ..folder import DOWN, INDICES, SCALE, TRANSPOSED_KEY, UP, VALUES
from ..sparse import Entries
from .runs import Runs
from .shaping import Shaped

if TYPE_CHECKING:
    from ..vector import LowRank

MIN_RELATEDNESS = 0.5


class VectorWriting:
    """Writes shaped tensors to the weights file; a context manager, which closes the file.

    Args:
        runs: the harmful runs that the vector is made from.
        file: path of the new weights file.

    Attributes:
        tensors: summaries of the written tensors by name.
        left_out: names of the tensors that the vector does not change.
    """

    def __init__(self, runs: Runs, file: Path) -> None:
        self._runs, self._writer = runs, _open_writer(file, runs)
        self._cosines: list[list[float | None]] = [[] for _ in range(len(runs))]
        self._transposed: list[str] = []
        self.tensors: dict[str, TensorSummary] = {}
        self.left_out: list[str] = []

    def add(self, tensor: Shaped) -> None:
        """Write a tensor, unless its shaped delta is zero."""
        name, direction = tensor.name, tensor.direction
        for cosines, origin in zip(self._cosines, tensor.origins, strict=True):
            cosines.append(origin.relation.cosine if origin else None)
        if not direction.norm:
            self.left_out.append(name)
            return
        known = [origin.relation for origin in tensor.origins if origin]
        base_norm = known[0].base_norm
        self.tensors[name] = TensorSummary(
            shape=tensor.shape,
            storage=self._write(tensor),
            norm=direction.norm,
            ratio=direction.norm / base_norm if base_norm else None,
            relatedness=min((each.cosine for each in known if each.cosine is not None), default=None),
            alignment=direction.cosine,
            n_zeros=direction.n_zeros,
            harmful_blake3=self._runs.digests_of(tensor.origins),
        )

    def finish(self) -> None:
        """Write the header.

        Raises:
            InputError: no tensor was written.
        """
        self._writer.finish({"format": "pt", TRANSPOSED_KEY: json.dumps(self._transposed)})
        if not self.tensors:
            raise InputError(
                "base and harmful parent should differ: all deltas are zero, in the parents or after the method, so "
                "there is nothing to subtract; give other parents or another method"
            )

    def parents(self) -> list[HarmfulParent]:
        """Return the harmful parents.

        Raises:
            InputError: a harmful checkpoint is not related to the base.
        """
        parents = self._runs.parents([Relatedness.of(cosines) for cosines in self._cosines])
        for parent in parents:
            median = parent.relatedness.median
            if parent.kind == "checkpoint" and median is not None and median < MIN_RELATEDNESS:
                raise InputError(
                    f"the harmful parent should be a fine-tune of the base: the median cosine between their tensors is "
                    f"{median:.3f}, below {MIN_RELATEDNESS}; give the base that it was trained from"
                )
        return parents

    def __enter__(self) -> "VectorWriting":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.__exit__()

    def _write(self, tensor: Shaped) -> Storage:
        name, stored = tensor.name, tensor.stored
        if isinstance(stored, Entries):
            shape = (stored.n_entries,)
            indices, values = zip(*stored.parts, strict=True)
            self._writer.write(name + INDICES, stored.dtype, shape, *(part.data.cast("B") for part in indices))
            self._writer.write(name + VALUES, "F32", shape, *(part.data.cast("B") for part in values))
            return "sparse"
        if isinstance(stored, np.ndarray):
            self._writer.write(name, "F32", tensor.shape, stored.reshape(-1).data.cast("B"))
            return "dense"
        self._write_factors(name, stored)
        return "low_rank"

    def _write_factors(self, name: str, factors: "LowRank") -> None:
        from ...checkpoints.tensors import bytes_of

        self._writer.write(name + DOWN, "F32", tuple(factors.down.shape), bytes_of(factors.down))
        self._writer.write(name + UP, "F32", tuple(factors.up.shape), bytes_of(factors.up))
        self._writer.write(name + SCALE, "F64", (), struct.pack("<d", factors.scale))
        if factors.transposed:
            self._transposed.append(name)


def _open_writer(file: Path, runs: Runs) -> TensorWriter:
    """Open the file with header space for every tensor in any storage, and for the list of transposed tensors."""
    parts = ("", DOWN, UP, SCALE, INDICES, VALUES)
    expected = [(name + part, runs.shape(name)) for name in runs.names for part in parts]
    return TensorWriter(file, expected, metadata_bytes=4096 + 2 * sum(len(json.dumps(name)) + 8 for name in runs.names))
