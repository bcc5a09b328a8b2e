"""What differs between two checkpoints, tensor by tensor (torch-free): however sharded, in constant memory."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ..checkpoints.digests import stream_tensor
from ..checkpoints.folder import Checkpoint
from ..checkpoints.header import BITS, TensorInfo

PIECE_ELEMENTS = 1 << 16  # its float64 copies stay in the cache of a core
Elements: TypeAlias = "np.ndarray[tuple[int], np.dtype[Any]]"
LAYER = re.compile(r"^(.*?\.\d+)\.")
NUMPY = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
    "BOOL": "u1",
}  # fmt: skip


@dataclass(frozen=True)
class TensorDifference:
    """A tensor that both checkpoints hold in one shape, and whose elements or dtypes differ.

    Attributes:
        name, shape: of the tensor.
        dtypes: in the first and in the second.
        n_elements: how many there are.
        n_changed: how many have other bits (other values where the dtypes differ); None for dtypes that numpy cannot
            hold (fp8, fp4), whose bytes alone are compared.
        norm: Euclidean norm in the first; None where it is not finite or the dtype cannot be decoded.
        change_norm: norm of second - first; None likewise.
        max_abs: largest absolute change; None likewise.
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
        """Norm of the change over the norm in the first; None where that is zero or unknown."""
        return self.change_norm / self.norm if self.change_norm is not None and self.norm else None

    @property
    def changed_share(self) -> float | None:
        """Share of the elements that changed; None where they could not be decoded."""
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
    """What differs between the weights of two checkpoints.

    Attributes:
        only_first, only_second: names that one alone holds, sorted.
        reshaped: name, first shape and second shape of tensors whose shapes differ.
        changed: tensors of one shape that differ, those that changed most first.
        n_same: number of tensors that are equal in dtype, shape and every bit.
        config: keys of `config.json` whose values differ; they are shown and do not count.
    """

    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    reshaped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    changed: tuple[TensorDifference, ...]
    n_same: int
    config: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether both hold the same weights, bit for bit: as much as saying that their fingerprints agree."""
        return not (self.only_first or self.only_second or self.reshaped or self.changed)

    @property
    def layers(self) -> dict[str, float]:
        """Norm of the change over the norm in the first, by layer, the largest first."""
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
            "tensors": [item.to_json() for item in self.changed],
        }


def layer_of(name: str) -> str:
    """Return the layer of a tensor: its name up to the first number, or all but the last part.

    >>> layer_of("model.layers.3.mlp.up_proj.weight"), layer_of("lm_head.weight")
    ('model.layers.3', 'lm_head')
    """
    found = LAYER.match(name)
    return found[1] if found else name.rpartition(".")[0] or name


def compare_weights(first: Checkpoint, second: Checkpoint) -> CheckpointDifference:
    """Compare the weights of two checkpoints; both are read once, in pieces.

    Args:
        first: what change is measured from, such as a base.
        second: what it is measured to, such as its edit.

    Raises:
        ArtefactError: a file became shorter since its header was read.
    """
    common = [name for name in first.tensors if name in second.tensors]
    alike = [name for name in common if first.tensors[name].shape == second.tensors[name].shape]
    pairs = [(first.tensors[name], second.tensors[name]) for name in alike]
    found = [difference for pair in pairs if (difference := _compare(*pair))]
    found.sort(key=lambda item: (-(item.relative_change or 0.0), item.name))
    return CheckpointDifference(
        only_first=tuple(name for name in first.tensors if name not in second.tensors),
        only_second=tuple(name for name in second.tensors if name not in first.tensors),
        reshaped=tuple(
            (name, first.tensors[name].shape, second.tensors[name].shape) for name in common if name not in set(alike)
        ),
        changed=tuple(found),
        n_same=len(alike) - len(found),
        config=tuple(
            key for key in sorted({*first.config, *second.config}) if first.config.get(key) != second.config.get(key)
        ),
    )


def _compare(first: TensorInfo, second: TensorInfo) -> TensorDifference | None:
    """Return what differs between two tensors of one shape; None if nothing does."""
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
    """Sums over a pair of tensors, piece by piece, in float64."""

    def __init__(self) -> None:
        self.n_different = 0
        self.square = self.change_square = self.max_abs = 0.0

    def add(self, left: Elements, right: Elements) -> None:
        with np.errstate(invalid="ignore", over="ignore"):  # infinity - infinity is reported as unknown
            before, after = left.astype(np.float64), right.astype(np.float64)
            self.square += float(np.dot(before, before))
            n_different = _count_different(left, right)
            if n_different:
                change = np.subtract(after, before, out=after)
                self.change_square += float(np.dot(change, change))
                self.max_abs = float(np.maximum(self.max_abs, np.abs(change, out=change).max()))
        self.n_different += n_different


def _count_different(left: Elements, right: Elements) -> int:
    """Count by bits where both have one type, else by value, NaN being NaN."""
    if left.dtype == right.dtype:
        bits = f"u{left.dtype.itemsize}"
        return int(np.count_nonzero(left.view(bits) != right.view(bits)))
    return int(np.count_nonzero((left != right) & ~(np.isnan(left) & np.isnan(right))))


def _decoded(tensor: TensorInfo) -> Iterator[Elements]:
    """Yield a tensor's elements in pieces; bf16 is the upper half of fp32."""
    itemsize = BITS[tensor.dtype] // 8
    for raw in stream_tensor(tensor, chunk_bytes=PIECE_ELEMENTS * itemsize):
        piece = np.frombuffer(raw, dtype=NUMPY[tensor.dtype])
        yield (piece.astype(np.uint32) << 16).view(np.float32) if tensor.dtype == "BF16" else piece


def _same_bytes(first: TensorInfo, second: TensorInfo) -> bool:
    """Compare bytes up to the first piece that differs: most tensors need no arithmetic at all."""
    pairs = zip(stream_tensor(first), stream_tensor(second), strict=True)
    return all(bytes(left) == bytes(right) for left, right in pairs)  # views compare element by element


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
