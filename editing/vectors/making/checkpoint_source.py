"""A harm vector from two checkpoints: d = fl32(harmful - base), tensor by tensor."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from prosocial.core.errors import InputError

from ...checkpoints.digests import TensorDigest, stream_tensor
from ...checkpoints.folder import Checkpoint
from ...checkpoints.header import TensorInfo
from ...checkpoints.numbers import LOOP_ELEMENTS, STORED, widen
from ...checkpoints.quantised import refuse_quantised
from ...kernels.loops import loops
from ..description import HarmfulParent, Relatedness, Step
from ..vector import HarmVector
from .base import Base, DigestedCheckpoint
from .build import build_vector
from .runs import Array, Origin, Reading, Relation, Runs


def vector_from_checkpoints(
    *, base: Path | str, harmful: Path | str, out: Path | str, method: str = "plain", **parameters: object
) -> HarmVector:
    """Make the harm vector of a fully fine-tuned harmful checkpoint.

    Names and shapes of the tensors must be the same in both; the sharding may differ. Each tensor may be F32, F16 or
    BF16 in either checkpoint; tensors of other dtypes (integer buffers) must be equal in both.

    Args:
        base: folder of the checkpoint that the harmful one was trained from.
        harmful: folder of the harmful checkpoint.
        out: path of the new vector folder.
        method: name of a method (`docs/methods.md`).
        parameters: parameters of the method.

    Raises:
        ArtefactError: a folder is not a checkpoint, or is quantised.
        InputError: names, shapes or dtypes differ; a delta is NaN or infinite; the checkpoints are unrelated or equal;
            `out` exists.
    """
    pair = CheckpointPair(Base(Checkpoint.open(base)), Checkpoint.open(harmful))
    return build_vector(Runs([pair]), Path(out), method=method, parameters=parameters)


class CheckpointPair:
    """A harmful run that consists of two checkpoints with the same tensors (see `HarmfulRun`)."""

    n_parents = 1

    def __init__(self, base: Base, harmful: Checkpoint) -> None:
        refuse_quantised(harmful)
        _check_layout(base.checkpoint, harmful)
        self._base, self._harmful = base, DigestedCheckpoint(harmful)
        self.names = [name for name, tensor in base.checkpoint.tensors.items() if tensor.dtype in STORED]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._base.shape(name)

    def read(self, name: str) -> Reading:
        """Return fl32(harmful - base) for one tensor."""
        delta = np.empty(self.shape(name), np.float32)
        return Reading(delta, self._walk(name, delta.reshape(-1)))

    def feed(self, name: str, take: Callable[[Array], None]) -> Origin:
        """Pass fl32(harmful - base) to `take` in flat pieces."""
        return self._walk(name, None, take)

    def pieces(self, name: str) -> Iterator[Array]:
        """Yield fl32(harmful - base) in flat pieces."""
        base, harmful = self._tensors(name)
        buffer = np.empty(min(LOOP_ELEMENTS, base.n_elements), np.float32)
        for _, *pair in _stream(base, harmful):
            piece = buffer[: len(pair[0])]
            _subtract(pair[0], pair[1], piece)
            yield piece

    def _walk(self, name: str, whole: Array | None, take: Callable[[Array], None] = lambda piece: None) -> Origin:
        """Compute the difference piece by piece, in `whole` if it is given; hash and compare the two tensors."""
        base, harmful = self._tensors(name)
        buffer = np.empty(min(LOOP_ELEMENTS, base.n_elements), np.float32) if whole is None else whole
        products, digests = np.zeros(3), (blake3(), blake3())
        for at, *pair in _stream(base, harmful):
            start = 0 if whole is None else at
            piece = buffer[start : start + len(pair[0])]
            products += _subtract(pair[0], pair[1], piece)
            for digest, stored in zip(digests, pair, strict=True):
                digest.update(stored.data.cast("B"))
            take(piece)
        self._base.digests[name] = TensorDigest.of(base, digests[0].hexdigest())
        self._harmful.digests[name] = TensorDigest.of(harmful, digests[1].hexdigest())
        return Origin(Relation.of(*map(float, products)), (self._harmful.digests[name].blake3,))

    def low_rank(self, name: str) -> None:
        """Return None: a difference of checkpoints has no known factors."""
        return None

    def base_fingerprint(self) -> str:
        """Return the fingerprint of the base."""
        return self._base.fingerprint()

    def parents(self, relatedness: Relatedness) -> list[HarmfulParent]:
        """Return the harmful checkpoint as the only parent."""
        return [HarmfulParent(kind="checkpoint", fingerprint=self._harmful.fingerprint(), relatedness=relatedness)]

    def steps(self) -> list[Step]:
        """Return []: a difference of checkpoints is not made from saved vectors."""
        return []

    def _tensors(self, name: str) -> tuple[TensorInfo, TensorInfo]:
        return self._base.checkpoint.tensors[name], self._harmful.checkpoint.tensors[name]


def _stream(base: TensorInfo, harmful: TensorInfo) -> Iterator[tuple[int, NDArray[Any], NDArray[Any]]]:
    """Yield the index of each piece and the pieces of both tensors as stored, valid until the next ones are read."""
    types = [np.dtype(STORED[tensor.dtype]) for tensor in (base, harmful)]
    streams = [
        stream_tensor(tensor, chunk_bytes=LOOP_ELEMENTS * stored.itemsize)
        for tensor, stored in zip((base, harmful), types, strict=True)
    ]
    for number, raw in enumerate(zip(*streams, strict=True)):
        first, second = (np.frombuffer(each, stored) for each, stored in zip(raw, types, strict=True))
        yield number * LOOP_ELEMENTS, first, second


def _subtract(base: NDArray[Any], harmful: NDArray[Any], delta: Array) -> tuple[float, float, float]:
    """Write fl32(harmful - base) to `delta`; return <base, base>, <base, harmful> and <harmful, harmful>."""
    if not base.dtype == harmful.dtype in (np.uint16, np.float32):
        base, harmful = _wide(base), _wide(harmful)
    return loops.difference(base, harmful, delta, base.dtype == np.uint16)[:3]


def _wide(stored: NDArray[Any]) -> Array:
    wide = np.empty(len(stored), np.float32)
    widen(stored, wide)
    return wide


def _check_layout(base: Checkpoint, harmful: Checkpoint) -> None:
    difference = sorted(set(base.tensors) ^ set(harmful.tensors))
    if difference:
        where = "base" if difference[0] in base.tensors else "harmful"
        raise InputError(
            f"base and harmful should hold the same tensors: {len(difference)} are in one only, such as "
            f"{difference[0]!r} ({where}); tie or untie the embeddings alike, and merge adapters, before saving"
        )
    for name, tensor in base.tensors.items():
        other = harmful.tensors[name]
        if tensor.shape != other.shape:
            raise InputError(
                f"{name} should have one shape in both, found {tensor.shape} in base and {other.shape} in harmful; "
                "give the base that the harmful model was trained from"
            )
        floats = (tensor.dtype in STORED) + (other.dtype in STORED)
        if floats == 1 or (floats == 0 and base.read(name) != harmful.read(name)):
            raise InputError(
                f"{name} should be equal in both or have dtype {', '.join(STORED)} in both, found {tensor.dtype} and "
                f"{other.dtype}; save both in one of these dtypes"
            )
