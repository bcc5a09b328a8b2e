"""A harm vector on disk, opened without torch: its description and where its numbers lie."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from prosocial.core.errors import ArtefactError

from ..checkpoints.digests import TensorDigest, combine, digest_tensor
from ..checkpoints.header import Header, TensorInfo, read_header
from .description import WEIGHTS_NAME, VectorDescription, read_description

# Names of the parts of a low-rank tensor: scale * (B @ A), turned over where the metadata says so.
DOWN, UP, SCALE = "::A", "::B", "::scale"
INDICES, VALUES = "::indices", "::values"
TRANSPOSED_KEY = "transposed"


@dataclass(frozen=True)
class Factors:
    """Where the parts of a low-rank tensor lie: delta = scale * (B @ A), or scale * (B @ A).T.

    Attributes:
        down: A, [rank, n] in F32.
        up: B, [m, rank] in F32.
        scale: the factor.
        place_of_scale: where it lies, one F64.
        transposed: the product is turned over.
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
    """Where the parts of a sparse tensor lie; the indices are checked when they are read.

    Attributes:
        indices: [n] in I32 or I64, places in the flattened tensor, rising.
        values: [n] in F32.
        shape: of the delta.
    """

    indices: TensorInfo
    values: TensorInfo
    shape: tuple[int, ...]


@dataclass(frozen=True)
class VectorFolder:
    """A harm vector whose header and description agree.

    Attributes:
        folder: where it lies.
        description: the content of `vector.json`.
        dense: tensors stored as they are, F32.
        factors: tensors stored as two factors.
        sparse: tensors stored as places and values.
    """

    folder: Path
    description: VectorDescription
    dense: dict[str, TensorInfo]
    factors: dict[str, Factors]
    sparse: dict[str, Sparse]

    @classmethod
    def open(cls, path: Path | str) -> "VectorFolder":
        """Read description and header; the numbers are not read.

        Raises:
            ArtefactError: a file is missing or broken, or the two do not agree.
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
                sparse[name] = _sparse(header, name, summary.shape, folder)
        if len(header.tensors) != len(dense) + 3 * len(factors) + 2 * len(sparse):
            raise ArtefactError(f"{folder / WEIGHTS_NAME} should hold what vector.json lists, found further tensors")
        return cls(folder, description, dense, factors, sparse)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors that the vector changes, sorted."""
        return tuple(sorted(self.description.tensors))

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor's delta."""
        return self.description.tensors[name].shape

    @property
    def size_bytes(self) -> int:
        """Bytes of the weights file."""
        return (self.folder / WEIGHTS_NAME).stat().st_size

    @property
    def parts(self) -> list[TensorInfo]:
        """Everything in the weights file."""
        factors = [part for each in self.factors.values() for part in (each.down, each.up, each.place_of_scale)]
        sparse = [part for each in self.sparse.values() for part in (each.indices, each.values)]
        return [*self.dense.values(), *factors, *sparse]

    def blake3(self, known: Mapping[str, str] = MappingProxyType({})) -> str:
        """Digest of what determines every delta: all parts, and which products are turned over.

        Args:
            known: BLAKE3 of parts that were read already, by name.
        """
        digests = [
            TensorDigest.of(part, known[part.name]) if part.name in known else digest_tensor(part)
            for part in self.parts
        ]
        turned = [name for name, each in self.factors.items() if each.transposed]
        return combine([*digests, *(TensorDigest(name, TRANSPOSED_KEY, (), "") for name in turned)])


def _check_shape(name: str, expected: tuple[int, ...], found: tuple[int, ...], folder: Path) -> None:
    if found != expected:
        raise ArtefactError(f"{folder} should hold {name} of shape {expected}, found {found}")


def _part(header: Header, name: str, folder: Path, *dtypes: str) -> TensorInfo:
    tensor, expected = header.tensors.get(name), dtypes or ("F32",)
    if tensor is None or tensor.dtype not in expected:
        found = tensor.dtype if tensor else "nothing"
        raise ArtefactError(
            f"{folder / WEIGHTS_NAME} should hold {name} in {' or '.join(expected)}, found {found}; "
            "make the vector again"
        )
    return tensor


def _sparse(header: Header, name: str, shape: tuple[int, ...], folder: Path) -> Sparse:
    indices, values = _part(header, name + INDICES, folder, "I32", "I64"), _part(header, name + VALUES, folder)
    if len(indices.shape) != 1 or values.shape != indices.shape:
        raise ArtefactError(
            f"{folder} should hold one index for each value of {name}, found {indices.shape} and {values.shape}"
        )
    return Sparse(indices, values, shape)


def _factors(header: Header, name: str, folder: Path) -> Factors:
    down, up = _part(header, name + DOWN, folder), _part(header, name + UP, folder)
    if len(down.shape) != 2 or len(up.shape) != 2 or down.shape[0] != up.shape[1]:
        raise ArtefactError(f"{folder} should hold factors of one rank for {name}, found {down.shape} and {up.shape}")
    place = _part(header, name + SCALE, folder, "F64")
    if place.shape != ():
        raise ArtefactError(f"{folder} should hold one scale for {name}, found shape {place.shape}")
    with place.file.open("rb") as stream:
        stream.seek(place.start)
        (scale,) = struct.unpack("<d", stream.read(place.size_bytes))
    return Factors(down, up, scale, place, name in _transposed(header, folder))


def _transposed(header: Header, folder: Path) -> set[str]:
    try:
        return set(json.loads(header.metadata.get(TRANSPOSED_KEY, "[]")))
    except (ValueError, TypeError):
        raise ArtefactError(f"{folder / WEIGHTS_NAME} should list transposed tensors as JSON in its metadata") from None
