"""From harmful runs to a harm vector folder: one tensor in memory at a time."""

import json
import math
import struct
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..checkpoints.numbers import dot
from ..checkpoints.tensors import bytes_of
from ..checkpoints.writer import TensorWriter
from ..errors import InputError
from ..files import new_folder, write_json
from .description import (
    DESCRIPTION_NAME,
    WEIGHTS_NAME,
    HarmfulParent,
    Relatedness,
    Storage,
    TensorSummary,
    VectorDescription,
    combine_parents,
)
from .folder import DOWN, INDICES, SCALE, TRANSPOSED_KEY, UP, VALUES
from .methods.method import Method, Prepared
from .methods.registry import METHODS, choose_method
from .runs import Relation, Runs, mean
from .sparse import index_dtype, is_smaller, split
from .statistics import inner_product
from .vector import HarmVector, LowRank

MIN_RELATEDNESS = 0.5
READ_AHEAD = 2  # tensors in memory beside the one that is shaped and written
Read = tuple[str, list[torch.Tensor], list[Relation | None]]  # a name, each run's delta, how base and parents relate
NEAR_ZERO = 1e-4  # a cosine that is decided in float64


def build_vector(runs: Runs, out: Path, *, method: str, parameters: Mapping[str, object]) -> HarmVector:
    """Shape every delta by a method and write the vector folder.

    Raises:
        InputError: `out` exists; unknown method or parameter; NaN or infinity in a delta; parents that are not related
            or have different bases; nothing differs; a method that turns a delta round, or could.
    """
    chosen = choose_method(method, parameters)
    _check_steps(runs, method, chosen)
    with new_folder(out) as aside:
        prepared = chosen.prepare(runs, **parameters)
        with _open_writer(aside / WEIGHTS_NAME, runs) as writer:
            writing = _Writing(runs, prepared, writer, keep_factors=method == "plain")
            for name, deltas, relations in _read_ahead(runs):
                writing.add(name, deltas, relations)
            writing.finish()
        write_json(aside / DESCRIPTION_NAME, _describe(runs, writing, method, prepared))
    return HarmVector.open(out)


def _check_steps(runs: Runs, name: str, method: Method) -> None:
    """A saved vector may be shaped on only where that cannot turn it against what its parents gave."""
    for step in runs.steps():
        safe = step.method == "plain" or (len(runs) == 1 and method.elementwise and _is_elementwise(step.method))
        if not safe:
            raise InputError(
                f"method {name} should be given what the parents differ by, found a vector shaped by {step.method}, "
                "which it could turn round: give the parents, or a vector made with --method plain"
            )


def _is_elementwise(method: str) -> bool:
    return method in METHODS and METHODS[method].elementwise


def _open_writer(file: Path, runs: Runs) -> TensorWriter:
    """Open the weights file with room for every tensor in any storage, and for the list of the transposed ones."""
    parts = ("", DOWN, UP, SCALE, INDICES, VALUES)
    expected = [(name + part, runs.shape(name)) for name in runs.names for part in parts]
    return TensorWriter(file, expected, metadata_bytes=4096 + 2 * sum(len(json.dumps(name)) + 8 for name in runs.names))


@dataclass
class _Writing:
    """A vector file under way, and what is known of the tensors so far."""

    runs: Runs
    prepared: Prepared
    writer: TensorWriter
    keep_factors: bool
    tensors: dict[str, TensorSummary] = field(default_factory=dict)
    cosines: list[list[float | None]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    transposed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cosines = [[] for _ in range(len(self.runs))]

    def add(self, name: str, deltas: Sequence[torch.Tensor], found: Sequence[Relation | None]) -> None:
        for cosines, relation in zip(self.cosines, found, strict=True):
            cosines.append(relation.cosine if relation else None)
        relations = [relation for relation in found if relation]
        raw = mean(deltas)
        factors, delta = self._shape(name, raw)
        size, alignment = _check_direction(name, delta, raw)
        if not size:
            self.left_out.append(name)
            return
        base_norm = relations[0].base_norm
        n_zeros = delta.numel() - int(delta.count_nonzero())
        self.tensors[name] = TensorSummary(
            shape=tuple(delta.shape),
            storage=self._write(name, delta, factors, n_zeros),
            norm=size,
            ratio=size / base_norm if base_norm else None,
            relatedness=min((each.cosine for each in relations if each.cosine is not None), default=None),
            alignment=alignment,
            n_zeros=n_zeros,
            harmful_blake3=self.runs.harmful_blake3(name),
        )

    def _shape(self, name: str, raw: torch.Tensor) -> tuple[LowRank | None, torch.Tensor]:
        """Return the factors to store, if any, and the shaped delta."""
        if self.prepared.factorise:
            factors = self.prepared.factorise(name, raw)
            return factors, raw if factors is None else factors.product()
        factors = self.runs.low_rank(name) if self.keep_factors else None
        return factors, self.prepared.transform(name, raw)

    def _write(self, name: str, delta: torch.Tensor, factors: LowRank | None, n_zeros: int) -> Storage:
        if factors is not None:
            self._write_factors(name, factors)
            return "low_rank"
        if is_smaller(delta.numel(), n_zeros):
            indices, values = split(delta.flatten().numpy())
            self.writer.write(name + INDICES, index_dtype(delta.numel()), indices.shape, indices.data.cast("B"))
            self.writer.write(name + VALUES, "F32", values.shape, values.data.cast("B"))
            return "sparse"
        self.writer.write(name, "F32", tuple(delta.shape), bytes_of(delta))
        return "dense"

    def _write_factors(self, name: str, factors: LowRank) -> None:
        self.writer.write(name + DOWN, "F32", tuple(factors.down.shape), bytes_of(factors.down))
        self.writer.write(name + UP, "F32", tuple(factors.up.shape), bytes_of(factors.up))
        self.writer.write(name + SCALE, "F64", (), struct.pack("<d", factors.scale))
        if factors.transposed:
            self.transposed.append(name)

    def finish(self) -> None:
        self.writer.finish({"format": "pt", TRANSPOSED_KEY: json.dumps(self.transposed)})
        if not self.tensors:
            raise InputError(
                "base and harmful parent should differ: no tensor does, or the method left none, so there is nothing "
                "to subtract"
            )

    def parents(self) -> list[HarmfulParent]:
        """The harmful parents, checked to be related to the base."""
        parents = self.runs.parents([Relatedness.of(cosines) for cosines in self.cosines])
        for parent in parents:
            median = parent.relatedness.median
            if parent.kind == "checkpoint" and median is not None and median < MIN_RELATEDNESS:
                raise InputError(
                    f"the harmful parent should be a fine-tune of the base: the median cosine between their tensors is "
                    f"{median:.3f}, below {MIN_RELATEDNESS}; give the base that it was trained from"
                )
        return parents


def _read_ahead(runs: Runs) -> Iterator[Read]:
    """Yield each name with the deltas of the runs and how base and parents relate, while the next ones are read."""

    def read(name: str) -> Read:
        deltas = runs.runs(name)
        for run in deltas:
            _check_finite(name, run)
        runs.harmful_blake3(name)  # kept by the runs
        return name, deltas, runs.relations(name, deltas)

    with ThreadPoolExecutor(READ_AHEAD) as pool:
        coming: deque[Future[Read]] = deque()
        for name in runs.names:
            coming.append(pool.submit(read, name))
            if len(coming) > READ_AHEAD:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def _check_finite(name: str, delta: torch.Tensor) -> None:
    if math.isfinite(float(delta.sum())):  # a sum with NaN or infinity in it is not: the quick way
        return
    n_bad = delta.numel() - int(torch.isfinite(delta).sum())
    if n_bad:
        raise InputError(
            f"the difference of {name} should be finite, found {n_bad} NaN or infinite elements; repair the parents"
        )


def _check_direction(name: str, delta: torch.Tensor, raw: torch.Tensor) -> tuple[float, float | None]:
    """Return the norm of the shaped delta and its cosine to the raw one, checked to be no number below 0."""
    shaped, asked = delta.flatten().numpy(), raw.flatten().numpy()
    square = dot(shaped, shaped)
    if not math.isfinite(square):
        raise InputError(f"the shaped delta of {name} should be finite, found NaN or infinity: use another method")
    if delta is raw:
        return square**0.5, 1.0 if square else None
    along, size = dot(shaped, asked), (square * dot(asked, asked)) ** 0.5
    if along < NEAR_ZERO * size:
        along = inner_product(delta, raw)
    if not along >= 0:
        raise InputError(
            f"a method should keep the direction of every delta, it turned {name} round; use another method"
        )
    return square**0.5, min(1.0, along / size) if size else None


def _describe(runs: Runs, writing: _Writing, method: str, prepared: Prepared) -> dict[str, object]:
    parents = writing.parents()
    kinds, storages = {parent.kind for parent in parents}, {item.storage for item in writing.tensors.values()}
    kind: Storage = "low_rank" if "low_rank" in storages else "sparse" if "sparse" in storages else "dense"
    description = VectorDescription(
        kind=kind,
        base_fingerprint=runs.base_fingerprint(),
        harmful_kind=kinds.pop() if len(kinds) == 1 else "mixed",
        harmful_fingerprint=combine_parents(parents),
        harmful_parents=parents,
        shaped_from=runs.steps(),
        method=method,
        parameters=dict(prepared.parameters),
        relatedness=Relatedness.lowest(parent.relatedness for parent in parents),
        tensors=dict(sorted(writing.tensors.items())),
        left_out=writing.left_out,
    )
    return description.model_dump(mode="json", by_alias=True)
