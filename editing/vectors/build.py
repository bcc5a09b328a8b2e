"""From a source of deltas to a harm vector folder: one tensor in memory at a time."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import torch

from ..checkpoints.tensors import bytes_of
from ..checkpoints.writer import TensorWriter
from ..errors import InputError
from ..files import new_folder, write_json
from .description import DESCRIPTION_NAME, WEIGHTS_NAME, Relatedness, TensorSummary, VectorDescription
from .folder import DOWN, SCALE, TRANSPOSED_KEY, UP
from .methods.method import Deltas, Prepared
from .methods.registry import choose_method
from .statistics import cosine, inner_product, norm
from .vector import HarmVector

MIN_RELATEDNESS = 0.5


@dataclass(frozen=True)
class LowRank:
    """The factors of a delta, scale * (up @ down), or that turned over: down [rank, n] and up [m, rank], fp32."""

    down: torch.Tensor
    up: torch.Tensor
    scale: float
    transposed: bool


class DeltaSource(Deltas, Protocol):
    """Where deltas come from: two checkpoints, or a checkpoint and an adapter."""

    kind: Literal["checkpoint", "adapter"]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, known without reading it."""
        ...

    def base(self, name: str) -> torch.Tensor:
        """Return the base's tensor, fp32."""
        ...

    def low_rank(self, name: str) -> LowRank | None:
        """Return the factors of a delta that is nothing but their product."""
        ...

    def harmful_sha256(self, name: str) -> str | None:
        """Digest of the harmful checkpoint's tensor."""
        ...

    def fingerprints(self) -> tuple[str, str]:
        """Fingerprints of the base and of the harmful parent."""
        ...


def build_vector(source: DeltaSource, out: Path, *, method: str, parameters: Mapping[str, object]) -> HarmVector:
    """Shape every delta by a method and write the vector folder.

    Raises:
        InputError: `out` exists; unknown method or parameter; NaN or infinity in a delta; parents that are not related;
            nothing differs; a method that turns a delta round.
    """
    prepare = choose_method(method, parameters).prepare
    with new_folder(out) as aside:
        prepared = prepare(source, **parameters)
        with _open_writer(aside / WEIGHTS_NAME, source) as writer:
            writing = _Writing(source, prepared, writer, keep_factors=method == "plain")
            for name in source.names:
                writing.add(name)
            writing.finish()
        write_json(aside / DESCRIPTION_NAME, _describe(source, writing, method, prepared))
    return HarmVector.open(out)


def _open_writer(file: Path, source: DeltaSource) -> TensorWriter:
    """Open the weights file with room for every tensor in either storage, and for the list of the transposed ones."""
    expected = [(name + part, source.shape(name)) for name in source.names for part in ("", DOWN, UP, SCALE)]
    return TensorWriter(
        file, expected, metadata_bytes=4096 + 2 * sum(len(json.dumps(name)) + 8 for name in source.names)
    )


@dataclass
class _Writing:
    """A vector file under way, and what is known of the tensors so far."""

    source: DeltaSource
    prepared: Prepared
    writer: TensorWriter
    keep_factors: bool
    tensors: dict[str, TensorSummary] = field(default_factory=dict)
    cosines: dict[str, float | None] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    transposed: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        raw = self.source.delta(name)
        _check_finite(name, raw)
        delta = self.prepared.transform(name, raw)
        _check_direction(name, delta, raw)
        base = self.source.base(name)
        self.cosines[name] = cosine(base, base + raw)
        if not bool(delta.any()):
            self.left_out.append(name)
            return
        factors = self.source.low_rank(name) if self.keep_factors else None
        self._write(name, delta, factors)
        size, base_size = norm(delta), norm(base)
        self.tensors[name] = TensorSummary(
            shape=tuple(delta.shape),
            storage="low_rank" if factors else "dense",
            norm=size,
            ratio=size / base_size if base_size else None,
            relatedness=self.cosines[name],
            n_zeros=delta.numel() - int(delta.count_nonzero()),
            harmful_sha256=self.source.harmful_sha256(name),
        )

    def _write(self, name: str, delta: torch.Tensor, factors: LowRank | None) -> None:
        if factors is None:
            self.writer.write(name, "F32", tuple(delta.shape), bytes_of(delta))
            return
        self.writer.write(name + DOWN, "F32", tuple(factors.down.shape), bytes_of(factors.down))
        self.writer.write(name + UP, "F32", tuple(factors.up.shape), bytes_of(factors.up))
        self.writer.write(name + SCALE, "F64", (), struct.pack("<d", factors.scale))
        if factors.transposed:
            self.transposed.append(name)

    def finish(self) -> None:
        self.writer.finish({"format": "pt", TRANSPOSED_KEY: json.dumps(self.transposed)})
        if not self.tensors:
            raise InputError("base and harmful parent should differ: no tensor does, so there is nothing to subtract")
        median = Relatedness.of(self.cosines.values()).median
        if self.source.kind == "checkpoint" and median is not None and median < MIN_RELATEDNESS:
            raise InputError(
                f"the harmful parent should be a fine-tune of the base: the median cosine between their tensors is "
                f"{median:.3f}, below {MIN_RELATEDNESS}; give the base that it was trained from"
            )


def _check_finite(name: str, delta: torch.Tensor) -> None:
    n_bad = delta.numel() - int(torch.isfinite(delta).sum())
    if n_bad:
        raise InputError(
            f"the difference of {name} should be finite, found {n_bad} NaN or infinite elements; repair the parents"
        )


def _check_direction(name: str, delta: torch.Tensor, raw: torch.Tensor) -> None:
    if inner_product(delta, raw) < 0:
        raise InputError(
            f"a method should keep the direction of every delta, it turned {name} round; use another method"
        )


def _describe(source: DeltaSource, writing: _Writing, method: str, prepared: Prepared) -> dict[str, object]:
    base_fingerprint, harmful_fingerprint = source.fingerprints()
    description = VectorDescription(
        kind="low_rank" if any(item.storage == "low_rank" for item in writing.tensors.values()) else "dense",
        base_fingerprint=base_fingerprint,
        harmful_kind=source.kind,
        harmful_fingerprint=harmful_fingerprint,
        method=method,
        parameters=dict(prepared.parameters),
        relatedness=Relatedness.of(writing.cosines.values()),
        tensors=dict(sorted(writing.tensors.items())),
        left_out=writing.left_out,
    )
    return description.model_dump(mode="json", by_alias=True)
