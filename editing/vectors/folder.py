"""A harm vector on disk, opened without torch: its description, and the locations of its tensors in the file."""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from prosocial.core.errors import ArtefactError

from ..checkpoints.digests import TensorDigest, combine, digest_tensor
from ..checkpoints.header import Header, TensorInfo, read_header
from .description import WEIGHTS_NAME, TensorSummary, VectorDescription, read_description

# Name suffixes of the parts of a low-rank delta: scale * (B @ A), transposed if the metadata lists the tensor.
DOWN, UP, SCALE = "::A", "::B", "::scale"
INDICES, VALUES = "::indices", "::values"
TRANSPOSED_KEY = "transposed"


@dataclass(frozen=True)
class Factors:
    """Locations of the parts of a low-rank delta, which is scale * (B @ A) or its transpose.

    Attributes:
        down: location of A, [rank, n] in F32.
        up: location of B, [m, rank] in F32.
        scale: value of the scale.
        place_of_scale: location of the scale, one F64.
        transposed: whether the delta is the transpose of the product.
    """

    down: TensorInfo
    up: TensorInfo
    scale: float
    place_of_scale: TensorInfo
    transposed: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the delta."""
        rows, columns = self.up.shape[0], self.down.shape[1]
        return (columns, rows) if self.transposed else (rows, columns)


@dataclass(frozen=True)
class Sparse:
    """Locations of the parts of a sparse delta; the indices are validated when they are read.

    Attributes:
        indices: location of the rising indices into the flattened tensor, [n] in I32 or I64.
        values: location of the values, [n] in F32.
        shape: shape of the delta.
    """

    indices: TensorInfo
    values: TensorInfo
    shape: tuple[int, ...]


@dataclass(frozen=True)
class VectorFolder:
    """A harm vector on disk, whose header was checked against its description.

    Attributes:
        folder: path of the folder.
        description: content of `vector.json`.
        dense: locations of deltas stored as dense F32 tensors, by name.
        factors: locations of deltas stored as two factors, by name.
        sparse: locations of deltas stored as indices and values, by name.
    """

    folder: Path
    description: VectorDescription
    dense: dict[str, TensorInfo]
    factors: dict[str, Factors]
    sparse: dict[str, Sparse]

    @classmethod
    def open(cls, path: Path | str) -> "VectorFolder":
        """Open a vector folder by reading description and header; the deltas are not read.

        Raises:
            ArtefactError: a file is missing or broken, or header and description do not agree.
        """
        folder = Path(path)
        description = read_description(folder)
        header = read_header(folder / WEIGHTS_NAME)
        dense: dict[str, TensorInfo] = {}
        factors: dict[str, Factors] = {}
        sparse: dict[str, Sparse] = {}
        for name, summary in description.tensors.items():
            if summary.storage == "dense":
                dense[name] = _part(header, name, folder)
                _check_shape(name, summary.shape, dense[name].shape, folder)
            elif summary.storage == "low_rank":
                factors[name] = _factors(header, name, folder)
                _check_shape(name, summary.shape, factors[name].shape, folder)
            else:
                sparse[name] = _sparse(header, name, summary, folder)
        if len(header.tensors) != len(dense) + 3 * len(factors) + 2 * len(sparse):
            raise ArtefactError(
                f"{folder / WEIGHTS_NAME} should hold only tensors that vector.json lists, found others; make the "
                "vector again"
            )
        return cls(folder, description, dense, factors, sparse)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors that the vector changes, sorted."""
        return tuple(sorted(self.description.tensors))

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor's delta."""
        return self.description.tensors[name].shape

    @property
    def size_bytes(self) -> int:
        """Size of the weights file in bytes."""
        return (self.folder / WEIGHTS_NAME).stat().st_size

    @property
    def parts(self) -> list[TensorInfo]:
        """Locations of all parts in the weights file."""
        factors = [part for each in self.factors.values() for part in (each.down, each.up, each.place_of_scale)]
        sparse = [part for each in self.sparse.values() for part in (each.indices, each.values)]
        return [*self.dense.values(), *factors, *sparse]

    def digests(self, name: str) -> tuple[str, ...]:
        """Return the digests of the stored parts of one delta, which are equal for equal deltas of one storage."""
        if name in self.factors:
            each = self.factors[name]
            parts = (each.down, each.up, each.place_of_scale)
            return (*(digest_tensor(part).blake3 for part in parts), str(each.transposed))
        stored = (self.dense[name],) if name in self.dense else (self.sparse[name].indices, self.sparse[name].values)
        return tuple(digest_tensor(part).blake3 for part in stored)

    def blake3(self, known: Mapping[str, str] = MappingProxyType({})) -> str:
        """Return the digest of the vector: over all parts, and over which products are transposed.

        Args:
            known: BLAKE3 of parts that were already read, by name; all other parts are read.
        """
        digests = [
            TensorDigest.of(part, known[part.name]) if part.name in known else digest_tensor(part)
            for part in self.parts
        ]
        transposed = [name for name, each in self.factors.items() if each.transposed]
        return combine([*digests, *(TensorDigest(name, TRANSPOSED_KEY, (), "") for name in transposed)])


def _check_shape(name: str, expected: tuple[int, ...], actual: tuple[int, ...], folder: Path) -> None:
    if actual != expected:
        raise ArtefactError(f"{folder} should hold {name} of shape {expected}, found {actual}; make the vector again")


def _part(header: Header, name: str, folder: Path, *dtypes: str) -> TensorInfo:
    tensor, expected = header.tensors.get(name), dtypes or ("F32",)
    if tensor is None or tensor.dtype not in expected:
        actual = tensor.dtype if tensor else "nothing"
        raise ArtefactError(
            f"{folder / WEIGHTS_NAME} should hold {name} in {' or '.join(expected)}, found {actual}; "
            "make the vector again"
        )
    return tensor


def _sparse(header: Header, name: str, summary: TensorSummary, folder: Path) -> Sparse:
    indices, values = _part(header, name + INDICES, folder, "I32", "I64"), _part(header, name + VALUES, folder)
    if len(indices.shape) != 1 or values.shape != indices.shape:
        raise ArtefactError(
            f"{folder} should hold one index for each value of {name}, found indices of shape {indices.shape} and "
            f"values of shape {values.shape}; make the vector again"
        )
    n_elements = math.prod(summary.shape)
    if min(summary.shape, default=0) < 0 or n_elements != summary.n_zeros + indices.n_elements:
        raise ArtefactError(
            f"{folder} should hold {name} with {summary.n_zeros} zeros and {indices.n_elements} other elements, found "
            f"the shape {summary.shape}; make the vector again"
        )
    return Sparse(indices, values, summary.shape)


def _factors(header: Header, name: str, folder: Path) -> Factors:
    down, up = _part(header, name + DOWN, folder), _part(header, name + UP, folder)
    if len(down.shape) != 2 or len(up.shape) != 2 or down.shape[0] != up.shape[1]:
        raise ArtefactError(
            f"{folder} should hold factors of one rank for {name}, found shapes {down.shape} and {up.shape}; make the "
            "vector again"
        )
    place = _part(header, name + SCALE, folder, "F64")
    if place.shape != ():
        raise ArtefactError(
            f"{folder} should hold one scale for {name}, found shape {place.shape}; make the vector again"
        )
    with place.file.open("rb") as stream:
        stream.seek(place.start)
        (scale,) = struct.unpack("<d", stream.read(place.size_bytes))
    return Factors(down, up, scale, place, name in _transposed(header, folder))


def _transposed(header: Header, folder: Path) -> set[str]:
    try:
        return set(json.loads(header.metadata.get(TRANSPOSED_KEY, "[]")))
    except (ValueError, TypeError, RecursionError):
        raise ArtefactError(
            f"{folder / WEIGHTS_NAME} should list transposed tensors as JSON in its metadata, found "
            f"{header.metadata.get(TRANSPOSED_KEY)!r:.80}; make the vector again"
        ) from None
