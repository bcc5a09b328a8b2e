"""The harm vectors given to an audit."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prosocial.core.errors import InputError
from prosocial.editing.checkpoints.digests import stream_tensor
from prosocial.editing.checkpoints.folder import Checkpoint
from prosocial.editing.checkpoints.header import TensorInfo
from prosocial.editing.checkpoints.tied import share_rows
from prosocial.editing.edits.deltas import Deltas
from prosocial.editing.edits.plan import redundant_copies
from prosocial.editing.vectors.folder import VectorFolder

from .intervals import FP32_UNIT
from .recovery import MAX_VECTORS


@dataclass(frozen=True)
class GivenVector:
    """A vector and its name in the report.

    Attributes:
        name: name of its folder, numbered if two folders share a name.
        folder: the stored vector.
        deltas: reads the deltas in pieces.
    """

    name: str
    folder: VectorFolder
    deltas: Deltas

    def error(self, tensor: str) -> float:
        """Return the largest difference of an element of the delta to another software's result; 0 for a stored delta.

        The product of factors [m, rank] and [rank, n] depends on the summation order. The bound is from Higham 2002,
        Accuracy and Stability of Numerical Algorithms, section 3.5, with the largest row and column norms.
        """
        factors = self.folder.factors.get(tensor)
        if factors is None:
            return 0.0
        down, up = _read(factors.down), _read(factors.up)
        norms = np.sqrt((down**2).sum(axis=0).max(initial=0.0) * (up**2).sum(axis=1).max(initial=0.0))
        return float(abs(factors.scale) * norms * (len(down) + 2) * FP32_UNIT)


def open_vectors(folders: Sequence[Path], base: Checkpoint) -> list[GivenVector]:
    """Open the vectors and check that they fit a base.

    Raises:
        InputError: there are too many vectors, one is given twice, or the base lacks a tensor of that shape.
        ArtefactError: a folder is not a vector.
    """
    if len(folders) > MAX_VECTORS:
        raise InputError(f"an audit takes at most {MAX_VECTORS} vectors, found {len(folders)}: give fewer")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise InputError("each vector should be given once, found one twice: the two weights could not be told apart")
    given = []
    for number, path in enumerate(folders, start=1):
        folder = VectorFolder.open(path)
        for name in folder.names:
            held = base.tensors.get(name)
            if held is None and name in redundant_copies(base, folder):
                continue
            if held is None or not (
                held.shape == folder.shape(name) or share_rows(name, held.shape, folder.shape(name))
            ):
                raise InputError(
                    f"{base.folder} should have a tensor {name} of shape {folder.shape(name)} as {path} does, found "
                    f"{held.shape if held else 'nothing'}: give the base that the vector is for"
                )
        shared = sum(other.name == path.name for other in folders) > 1
        given.append(GivenVector(f"{path.name} ({number})" if shared else path.name, folder, Deltas(folder)))
    return given


def _read(tensor: TensorInfo) -> NDArray[np.float64]:
    raw = b"".join(map(bytes, stream_tensor(tensor)))
    return np.frombuffer(raw, "<f4").reshape(tensor.shape).astype(np.float64)
