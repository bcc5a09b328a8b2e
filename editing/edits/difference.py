"""Comparison of two checkpoints tensor by tensor, with any sharding and in constant memory (torch-free)."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from ..checkpoints.alignment import align
from ..checkpoints.digests import stream_tensor
from ..checkpoints.folder import Checkpoint
from ..checkpoints.header import BITS, TensorInfo
from ..checkpoints.quantised import quantisation_evidence

PIECE_ELEMENTS = 1 << 16  # the float64 copies of a piece fit in the cache of a core
Elements: TypeAlias = "np.ndarray[tuple[int], np.dtype[Any]]"
LAYER = re.compile(r"^(.*?\.\d+)\.")
NUMPY = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
    "BOOL": "u1", "C64": "<c8",
}  # fmt: skip
FLOAT8 = {  # bits of the exponent, its bias, and what codes without a number are: infinities, one NaN, or none
    "F8_E4M3": (4, 7, "nan"), "F8_E5M2": (5, 15, "inf"), "F8_E4M3FNUZ": (4, 8, "zero"), "F8_E5M2FNUZ": (5, 16, "zero"),
}  # fmt: skip
NUMPY |= dict.fromkeys((*FLOAT8, "F8_E8M0"), "u1")


@dataclass(frozen=True)
class TensorDifference:
    """A tensor that has the same shape in both checkpoints, but different elements or dtypes.

    Attributes:
        name: name of the tensor.
        shape: shape of the tensor.
        dtypes: dtype in the first and in the second checkpoint.
        n_elements: number of elements.
        n_changed: number of elements whose bits differ (whose values differ if the dtypes are different); None for
            dtypes of fewer than eight bits (fp4, fp6), of which only the bytes are compared.
        norm: Euclidean norm in the first checkpoint; None if it is not finite or the dtype cannot be decoded.
        change_norm: norm of second - first; None in the same cases.
        max_abs: largest absolute change; None in the same cases.
    """

    name: str
    shape: tuple[int, ...]
    dtypes: tuple[str, str]
    n_elements: int
    n_changed: int | None
    norm: float | None
    change_norm: float | None
    max_abs: float | None

    @property
    def relative_change(self) -> float | None:
        """Norm of the change divided by the norm in the first checkpoint; None if that is zero or unknown."""
        return self.change_norm / self.norm if self.change_norm is not None and self.norm else None

    @property
    def changed_share(self) -> float | None:
        """Share of the elements that changed; None if they could not be decoded."""
        return None if self.n_changed is None else self.n_changed / self.n_elements

    def to_json(self) -> dict[str, Any]:
        """Return the difference as plain data."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "dtypes": list(self.dtypes),
            "relative_change": self.relative_change,
            "max_abs": self.max_abs,
            "changed_share": self.changed_share,
        }


@dataclass(frozen=True)
class CheckpointDifference:
    """Difference between the weights of two checkpoints.

    Attributes:
        only_first: names of the tensors that only the first checkpoint has, sorted.
        only_second: names of the tensors that only the second checkpoint has, sorted.
        reshaped: name, first shape and second shape of tensors whose shapes differ.
        changed: tensors of equal shape that differ, sorted by relative change, largest first.
        n_same: number of tensors with equal dtype, shape and bits.
        config: keys of `config.json` whose values differ; they do not affect `same`.
        redundant: tied copies and computed buffers that only one stores, in words; they do not affect `same`.
        quantised: what shows that a checkpoint is quantised, in words; its elements are codes, not values.
        files: differences of files other than weights, in words (bundles, steered models and other folders).
    """

    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    reshaped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    changed: tuple[TensorDifference, ...]
    n_same: int
    config: tuple[str, ...]
    redundant: tuple[str, ...] = ()
    quantised: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether both hold the same weights bit for bit, and the same files where files are compared."""
        return self.same_weights and not self.files

    @property
    def same_weights(self) -> bool:
        """Whether both hold the same weights bit for bit; the fingerprints are equal too if nothing is redundant."""
        return not (self.only_first or self.only_second or self.reshaped or self.changed)

    @property
    def layers(self) -> dict[str, float]:
        """Norm of the change divided by the norm in the first checkpoint, by layer, largest first."""
        sums: dict[str, list[float]] = {}
        for item in self.changed:
            if item.norm is not None and item.change_norm is not None:
                both = sums.setdefault(layer_of(item.name), [0.0, 0.0])
                both[0] += item.change_norm**2
                both[1] += item.norm**2
        shares = {layer: (change / size) ** 0.5 for layer, (change, size) in sums.items() if size}
        return dict(sorted(shares.items(), key=lambda pair: (-pair[1], pair[0])))

    def to_json(self) -> dict[str, Any]:
        """Return the difference as plain data."""
        return {
            "same": self.same,
            "n_same": self.n_same,
            "n_changed": len(self.changed),
            "only_first": list(self.only_first),
            "only_second": list(self.only_second),
            "reshaped": [
                {"name": name, "shapes": [list(first), list(second)]} for name, first, second in self.reshaped
            ],
            "layers": self.layers,
            "config": list(self.config),
            "redundant": list(self.redundant),
            "quantised": list(self.quantised),
            "files": list(self.files),
            "tensors": [item.to_json() for item in self.changed],
        }


def layer_of(name: str) -> str:
    """Return the layer of a tensor: its name up to the first number, or without the last part if it has none.

    >>> layer_of("model.layers.3.mlp.up_proj.weight"), layer_of("lm_head.weight")
    ('model.layers.3', 'lm_head')
    """
    match = LAYER.match(name)
    return match[1] if match else name.rpartition(".")[0] or name


def compare_weights(first: Checkpoint, second: Checkpoint) -> CheckpointDifference:
    """Compare the weights of two checkpoints; both are read in pieces.

    Args:
        first: the reference, such as a base; changes are relative to it.
        second: the other checkpoint, such as an edit of the base.

    Raises:
        ArtefactError: a file became shorter since its header was read.
    """
    aligned = align(first, second)
    evidence = ((each.folder.name, quantisation_evidence(each)) for each in (first, second))
    return replace(
        compare_tensors(aligned.first, aligned.second),
        config=tuple(
            key for key in sorted({*first.config, *second.config}) if first.config.get(key) != second.config.get(key)
        ),
        redundant=aligned.notes,
        quantised=tuple(f"{name} is quantised: {what}" for name, what in evidence if what),
    )


def compare_tensors(ours: Mapping[str, TensorInfo], theirs: Mapping[str, TensorInfo]) -> CheckpointDifference:
    """Compare two sets of stored tensors by name; both are read in pieces."""
    common = [name for name in ours if name in theirs]
    alike = [name for name in common if ours[name].shape == theirs[name].shape]
    pairs = [(ours[name], theirs[name]) for name in alike]
    changed = [
        replace(difference, name=name)
        for name, pair in zip(alike, pairs, strict=True)
        if (difference := _compare(*pair))
    ]
    changed.sort(key=lambda item: (-(item.relative_change or 0.0), item.name))
    return CheckpointDifference(
        only_first=tuple(name for name in ours if name not in theirs),
        only_second=tuple(name for name in theirs if name not in ours),
        reshaped=tuple((name, ours[name].shape, theirs[name].shape) for name in common if name not in set(alike)),
        changed=tuple(changed),
        n_same=len(alike) - len(changed),
        config=(),
    )


def _compare(first: TensorInfo, second: TensorInfo) -> TensorDifference | None:
    """Return the difference between two tensors of equal shape; None if they are equal."""
    dtypes = (first.dtype, second.dtype)
    if first.dtype == second.dtype and _same_bytes(first, second):
        return None
    if not set(dtypes) <= set(NUMPY):
        return TensorDifference(first.name, first.shape, dtypes, first.n_elements, None, None, None, None)
    sums = _Sums()
    for left, right in zip(_decoded(first), _decoded(second), strict=True):
        sums.add(left, right)
    return TensorDifference(
        first.name,
        first.shape,
        dtypes,
        first.n_elements,
        sums.n_different,
        _finite(sums.square**0.5),
        _finite(sums.change_square**0.5),
        _finite(sums.max_abs),
    )


class _Sums:
    """Sums over a pair of tensors in float64, accumulated piece by piece."""

    def __init__(self) -> None:
        self.n_different = 0
        self.square = self.change_square = self.max_abs = 0.0

    def add(self, left: Elements, right: Elements) -> None:
        with np.errstate(invalid="ignore", over="ignore"):  # sums that are not finite are reported as None
            before, after = (_real(each) for each in (left, right))
            self.square += float(np.dot(before, before))
            n_different = _count_different(left, right)
            if n_different:
                change = np.subtract(after, before, out=after)
                self.change_square += float(np.dot(change, change))
                self.max_abs = float(np.maximum(self.max_abs, np.abs(change, out=change).max()))
        self.n_different += n_different


@cache
def float8_values(dtype: str) -> Elements:
    """Return the value of each of the 256 codes of an 8-bit dtype, [256] fp32 (OCP OFP8 and MX 1.0, and FNUZ).

    >>> float8_values("F8_E4M3")[[0x38, 0x7E, 0x80]].tolist()
    [1.0, 448.0, -0.0]
    """
    if dtype == "F8_E8M0":
        return np.append(np.ldexp(1.0, np.arange(255) - 127), np.nan).astype(np.float32)
    n_bits, bias, special = FLOAT8[dtype]
    n_mantissa, codes = 7 - n_bits, np.arange(128)
    exponent, mantissa = codes >> n_mantissa, codes & ((1 << n_mantissa) - 1)
    fraction = np.where(exponent, mantissa + (1 << n_mantissa), mantissa).astype(np.float64)
    values = np.ldexp(fraction, np.maximum(exponent, 1) - bias - n_mantissa)
    if special == "nan":
        values[-1] = np.nan
    elif special == "inf":
        values[exponent == exponent.max()] = [np.inf, *[np.nan] * ((1 << n_mantissa) - 1)]
    both = np.concatenate([values, -values])
    if special == "zero":
        both[128] = np.nan
    return both.astype(np.float32)


def _real(elements: Elements) -> Elements:
    """Return elements as float64; a complex number as its two parts."""
    return (elements.view(np.float32) if elements.dtype.kind == "c" else elements).astype(np.float64)


def _count_different(left: Elements, right: Elements) -> int:
    """Count elements that differ: by bits if the dtypes are equal, otherwise by value, with NaN equal to NaN."""
    if left.dtype == right.dtype:
        bits = f"u{left.dtype.itemsize}"
        return int(np.count_nonzero(left.view(bits) != right.view(bits)))
    return int(np.count_nonzero((left != right) & ~(np.isnan(left) & np.isnan(right))))


def _decoded(tensor: TensorInfo) -> Iterator[Elements]:
    """Yield a tensor's elements in pieces; bf16 is converted to fp32, of which it is the upper half."""
    itemsize = BITS[tensor.dtype] // 8
    for raw in stream_tensor(tensor, chunk_bytes=PIECE_ELEMENTS * itemsize):
        piece = np.frombuffer(raw, dtype=NUMPY[tensor.dtype])
        if tensor.dtype in FLOAT8 or tensor.dtype == "F8_E8M0":
            piece = float8_values(tensor.dtype)[piece]
        yield (piece.astype(np.uint32) << 16).view(np.float32) if tensor.dtype == "BF16" else piece


def _same_bytes(first: TensorInfo, second: TensorInfo) -> bool:
    """Compare raw bytes up to the first piece that differs, because most tensors are equal."""
    pairs = zip(stream_tensor(first), stream_tensor(second), strict=True)
    return all(bytes(left) == bytes(right) for left, right in pairs)  # comparing memoryviews is slow


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
