"""A harm vector from two checkpoints: d = fl32(harmful - base), tensor by tensor."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from prosocial.core.errors import InputError

from ...checkpoints.alignment import Alignment, align, shared_rows
from ...checkpoints.digests import TensorDigest, digest_tensor, stream_tensor
from ...checkpoints.folder import Checkpoint
from ...checkpoints.header import TensorInfo
from ...checkpoints.numbers import LOOP_ELEMENTS, STORED, widen
from ...checkpoints.quantised import refuse_quantised
from ...checkpoints.tied import INPUT_SUFFIXES, OUTPUT_SUFFIXES
from ...depth import BLOCK
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

    Names and shapes of the tensors must be the same in both; the sharding may differ. If one has more rows of the
    vocabulary, the shared rows are subtracted. Redundant copies of tied embeddings, and buffers that transformers
    computes itself, may be missing in either. Each tensor may be F32, F16 or
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
        self._base, self._harmful = base, DigestedCheckpoint(harmful)
        self._aligned = align(base.checkpoint, harmful)
        _check_names(self._aligned)
        self._pairs = {
            name: shared_rows(tensor, self._aligned.second[name]) for name, tensor in self._aligned.first.items()
        }
        _check_pairs(self._pairs)
        self.names = [name for name, (tensor, _) in self._pairs.items() if tensor.dtype in STORED]

    @property
    def notes(self) -> list[str]:
        """What differs between the layouts of the two checkpoints, in words."""
        return [*self._aligned.notes, *(note for name in self.names if (note := self._note(name)))]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, without the rows of the vocabulary that only one of the two has."""
        return self._pairs[name][0].shape

    def read(self, name: str) -> Reading:
        """Return fl32(harmful - base) for one tensor."""
        delta = np.empty(self.shape(name), np.float32)
        return Reading(delta, self._walk(name, delta.reshape(-1)))

    def feed(self, name: str, take: Callable[[Array], None]) -> Origin:
        """Pass fl32(harmful - base) to `take` in flat pieces."""
        return self._walk(name, None, take)

    def pieces(self, name: str) -> Iterator[Array]:
        """Yield fl32(harmful - base) in flat pieces."""
        base, harmful = self._pairs[name]
        buffer = np.empty(min(LOOP_ELEMENTS, base.n_elements), np.float32)
        for _, *pair in _stream(base, harmful):
            piece = buffer[: len(pair[0])]
            _subtract(pair[0], pair[1], piece)
            yield piece

    def _walk(self, name: str, whole: Array | None, take: Callable[[Array], None] = lambda piece: None) -> Origin:
        """Compute the difference piece by piece, in `whole` if it is given; hash and compare the two tensors."""
        base, harmful = self._pairs[name]
        buffer = np.empty(min(LOOP_ELEMENTS, base.n_elements), np.float32) if whole is None else whole
        products, digests = np.zeros(3), (blake3(), blake3())
        for at, *pair in _stream(base, harmful):
            start = 0 if whole is None else at
            piece = buffer[start : start + len(pair[0])]
            products += _subtract(pair[0], pair[1], piece)
            for digest, stored in zip(digests, pair, strict=True):
                digest.update(stored.data.cast("B"))
            take(piece)
        relation = Relation.of(*map(float, products))
        if name not in self._harmful.checkpoint.tensors:  # a tied copy that it stores under another name
            return Origin(relation, (digests[1].hexdigest(),))
        sides = ((self._base, base, digests[0]), (self._harmful, harmful, digests[1]))
        for side, tensor, digest in sides:
            whole_tensor = side.checkpoint.tensors[name]
            known = whole_tensor.size_bytes == tensor.size_bytes
            side.digests[name] = (
                TensorDigest.of(whole_tensor, digest.hexdigest()) if known else digest_tensor(whole_tensor)
            )
        return Origin(relation, (self._harmful.digests[name].blake3,))

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

    def _note(self, name: str) -> str:
        base, harmful = self._aligned.first[name].shape, self._aligned.second[name].shape
        if base == harmful:
            return ""
        where = "base" if base[0] > harmful[0] else "harmful"
        n_shared, n_new = min(base[0], harmful[0]), abs(base[0] - harmful[0])
        return f"{name}: {n_shared} shared rows are subtracted; the {n_new} rows that only {where} has stay as they are"


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


def _check_names(aligned: Alignment) -> None:
    difference = sorted(set(aligned.first) ^ set(aligned.second))
    if difference:
        where = "base" if difference[0] in aligned.first else "harmful"
        raise InputError(
            f"base and harmful should hold the same tensors: {len(difference)} are in one only, such as "
            f"{difference[0]!r} ({where}); {_advice(aligned, difference)}"
        )


def _advice(aligned: Alignment, difference: list[str]) -> str:
    """Return what to do about tensors that only one of two checkpoints has."""
    if any("lora_" in name for name in difference):
        return "merge the adapter into its base, or give the adapter's folder"
    if all(name.endswith((*INPUT_SUFFIXES, *OUTPUT_SUFFIXES)) for name in difference):
        return (
            "one ties input and output embedding and the other trained them apart: give a base that stores both, or "
            "tie them in both"
        )
    tails = [{_tail(name) for name in names} for names in (aligned.first, aligned.second)]
    if tails[0] == tails[1]:
        return "only the first parts of the names differ: load and save both with one version of transformers"
    return "give the base that the harmful model was trained from, saved with the same class of transformers"


def _tail(name: str) -> str:
    """Return a name from its layer on, or its last two parts."""
    at = BLOCK.search(name)
    return name[at.start() :] if at else ".".join(name.split(".")[-2:])


def _check_pairs(pairs: dict[str, tuple[TensorInfo, TensorInfo]]) -> None:
    for name, (tensor, other) in pairs.items():
        if tensor.shape != other.shape:
            raise InputError(
                f"{name} should have one shape in both, found {tensor.shape} in base and {other.shape} in harmful; "
                "give the base that the harmful model was trained from"
            )
        floats = (tensor.dtype in STORED) + (other.dtype in STORED)
        if floats == 1 or (floats == 0 and digest_tensor(tensor).blake3 != digest_tensor(other).blake3):
            raise InputError(
                f"{name} should be equal in both or have dtype {', '.join(STORED)} in both, found {tensor.dtype} and "
                f"{other.dtype}; save both in one of these dtypes"
            )
