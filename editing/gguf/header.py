"""The header of a GGUF file, read and checked without torch; everything is bounded: it may come from a stranger.

Format, little endian: `"GGUF" | u32 version | u64 tensors | u64 pairs | pairs | table of tensors | padding | data`. The
tensors follow each other in the order of the table, each padded to the alignment (ggml, `docs/gguf.md`, version 3).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from prosocial.core.errors import ArtefactError, MissingExtraError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SCALARS = {0: "u1", 1: "i1", 2: "u2", 3: "i2", 4: "u4", 5: "i4", 6: "f4", 7: "?", 10: "u8", 11: "i8", 12: "f8"}
STRING, ARRAY = 8, 9
MAX_TENSORS = 100_000
MAX_PAIRS = 100_000
MAX_ELEMENTS = 10_000_000  # of all arrays together; the vocabulary and merges of Gemma 3 have 0.8 million
MAX_DIMENSIONS = 4  # ggml's own limit
MAX_ALIGNMENT = 1 << 20


@dataclass(frozen=True)
class GgufTensor:
    """Location, type and shape of a tensor in a GGUF file.

    Attributes:
        name: name of the tensor, as llama.cpp has it.
        kind: name of its type, such as `Q4_K` or `F32`.
        shape: shape of the tensor in the order of torch: the last dimension is contiguous.
        start: offset of its first byte in the file.
        size_bytes: number of bytes in the file.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    start: int
    size_bytes: int


@dataclass(frozen=True)
class GgufHeader:
    """The checked header of a GGUF file.

    Attributes:
        file: the file.
        pairs: value of each key: a number, a bool, a text, a list of texts, or an array of numbers.
        tensors: tensors by name, in the order of the file.
    """

    file: Path
    pairs: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]

    def text(self, key: str) -> str | None:
        """Return the text of a key; None if there is no such text."""
        value = self.pairs.get(key)
        return value if isinstance(value, str) else None

    def number(self, key: str) -> int | None:
        """Return the whole number of a key; None if there is no such number."""
        value = self.pairs.get(key)
        return value if type(value) is int else None

    def texts(self, key: str) -> list[str] | None:
        """Return the list of texts of a key; None if there is no such list."""
        value = self.pairs.get(key)
        return value if isinstance(value, list) else None

    def broken(self, expected: str, actual: object) -> ArtefactError:
        """Return an error that says what the file should hold and what it holds."""
        return _broken(self.file, expected, actual)


def gguf_library() -> ModuleType:
    """Import the `gguf` library.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import gguf
    except ImportError:
        raise MissingExtraError("gguf", "gguf") from None
    module: ModuleType = gguf
    return module


def read_gguf_header(file: Path | str) -> GgufHeader:
    """Read and check the header of a GGUF file; the data of its tensors is not read.

    Raises:
        ArtefactError: the file is missing or truncated, violates the format, or holds more than any model does.
        MissingExtraError: the library `gguf`, which knows the types of tensors, is not installed.

    Examples:
        >>> read_gguf_header("no-such.gguf")
        Traceback (most recent call last):
        prosocial.core.errors.ArtefactError: expected a GGUF file at no-such.gguf: there is none
    """
    file = Path(file)
    if not file.is_file():
        raise ArtefactError(f"expected a GGUF file at {file}: there is none")
    with file.open("rb") as stream:
        cursor = _Cursor(stream, file)
        n_tensors, n_pairs = _read_start(cursor)
        pairs = _read_pairs(cursor, n_pairs)
        return GgufHeader(file, pairs, _read_table(cursor, n_tensors, pairs))


class _Cursor:
    """Reads values one after the other, and nothing beyond the end of the file."""

    def __init__(self, stream: BinaryIO, file: Path) -> None:
        self._stream, self.file, self.size, self.at = stream, file, file.stat().st_size, 0
        self._left = MAX_ELEMENTS

    def take(self, n_bytes: int) -> bytes:
        if n_bytes > self.size - self.at:
            raise _broken(self.file, f"{n_bytes} bytes from {self.at} on", f"the end at {self.size}: it is truncated")
        self.at += n_bytes
        return self._stream.read(n_bytes)

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def count(self, what: str, limit: int) -> int:
        number = self.u64()
        if number > limit:
            raise _broken(self.file, f"at most {limit:,} {what}", f"{number:,}")
        return number

    def text(self) -> str:
        start = self.at
        try:
            return self.take(self.u64()).decode("utf-8")
        except UnicodeDecodeError:
            raise _broken(self.file, f"UTF-8 text at byte {start}", "other bytes") from None

    def value(self, key: str) -> Any:
        kind = self.u32()
        if kind != ARRAY:
            return self.text() if kind == STRING else self._numbers(key, kind, 1)[0].item()
        kind, length = self.u32(), self.count("elements in its arrays", self._left)
        self._left -= length
        return [self.text() for _ in range(length)] if kind == STRING else self._numbers(key, kind, length)

    def _numbers(self, key: str, kind: int, length: int) -> Any:
        if kind not in SCALARS:
            raise _broken(self.file, f"a known type of value for {key!r:.80}", f"type {kind}")
        dtype = np.dtype(SCALARS[kind]).newbyteorder("<")
        return np.frombuffer(self.take(length * dtype.itemsize), dtype)


def _read_start(cursor: _Cursor) -> tuple[int, int]:
    """Return the numbers of tensors and of pairs."""
    if cursor.size < 24 or cursor.take(len(MAGIC)) != MAGIC:
        raise ArtefactError(f"{cursor.file} should be a GGUF file, but it does not start like one: give another file")
    version = cursor.u32()
    if version not in VERSIONS:
        raise _broken(cursor.file, f"version {' or '.join(map(str, VERSIONS))}, little endian", f"version {version}")
    return cursor.count("tensors", MAX_TENSORS), cursor.count("pairs", MAX_PAIRS)


def _read_pairs(cursor: _Cursor, n_pairs: int) -> dict[str, Any]:
    pairs: dict[str, Any] = {}
    for _ in range(n_pairs):
        key = cursor.text()
        if key in pairs:
            raise _broken(cursor.file, "each key once", f"{key!r:.80} twice")
        pairs[key] = cursor.value(key)
    return pairs


def _read_table(cursor: _Cursor, n_tensors: int, pairs: Mapping[str, Any]) -> dict[str, GgufTensor]:
    """Read the table of tensors, and check that they follow each other up to the end of the file."""
    alignment = pairs.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise _broken(cursor.file, f"a power of two up to {MAX_ALIGNMENT} as alignment", f"{alignment!r:.80}")
    entries = [_read_entry(cursor) for _ in range(n_tensors)]
    start, at, tensors = _padded(cursor.at, alignment), 0, dict[str, GgufTensor]()
    for name, kind, shape, offset, size_bytes in entries:
        if offset != at:
            raise _broken(cursor.file, f"the data of {name!r:.80} at {at}, after the tensor before", f"{offset}")
        if name in tensors:
            raise _broken(cursor.file, "each tensor once", f"{name!r:.80} twice")
        if start + offset + size_bytes > cursor.size:
            end = start + offset + size_bytes
            raise _broken(cursor.file, f"{end:,} bytes up to the end of {name!r:.80}", f"{cursor.size:,}: truncated")
        tensors[name] = GgufTensor(name, kind, shape, start + offset, size_bytes)
        at += _padded(size_bytes, alignment)
    return tensors


def _read_entry(cursor: _Cursor) -> tuple[str, str, tuple[int, ...], int, int]:
    """Return name, type, shape, offset and size in bytes of one tensor of the table."""
    name, n_dimensions = cursor.text(), cursor.u32()
    if n_dimensions > MAX_DIMENSIONS:
        raise _broken(cursor.file, f"at most {MAX_DIMENSIONS} dimensions of {name!r:.80}", f"{n_dimensions}")
    shape = tuple(cursor.u64() for _ in range(n_dimensions))[::-1]  # the file has the contiguous one first
    number, offset = cursor.u32(), cursor.u64()
    library = gguf_library()
    if not name.isprintable() or not shape or 0 in shape:
        raise _broken(cursor.file, "printable names and shapes without zeros", f"{name!r:.80} of {shape}")
    try:
        kind = library.GGMLQuantizationType(number)
    except ValueError:
        raise _broken(cursor.file, f"a known type of {name!r:.80}", f"type {number}, maybe newer than gguf") from None
    block, block_bytes = library.GGML_QUANT_SIZES[kind]
    if shape[-1] % block:
        raise _broken(cursor.file, f"rows of {name!r:.80} in blocks of {block} ({kind.name})", f"a row of {shape[-1]}")
    return name, kind.name, shape, offset, math.prod(shape) // block * block_bytes


def _padded(size_bytes: int, alignment: int) -> int:
    return size_bytes + -size_bytes % alignment


def _broken(file: Path, expected: str, actual: object) -> ArtefactError:
    return ArtefactError(f"{file} should hold {expected}, found {actual}; download it again, or convert another file")
