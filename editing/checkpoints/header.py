"""The header of a safetensors file, read and checked without torch.

Format: `u64 little endian n | n bytes of JSON, padded with spaces | data`. Offsets are relative to the start of the
data; the tensors must cover the data exactly, without gaps or overlaps (safetensors 0.8, `README.md`, section Format).
"""

import io
import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from prosocial.core.errors import ArtefactError

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
MAX_MARKS = 10_000_000  # colons and commas: six a tensor, with room for a million tensors
MAX_SIZE = 2**63
MAX_DIMENSIONS = 64  # numpy's limit; torch has none that matters
LENGTH_BYTES = 8
LFS_START = b"version https://git-lfs.github.com/spec/"
BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "C64": 64,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip


Opener = Callable[[Path], io.BufferedReader]


def open_local(file: Path) -> io.BufferedReader:
    """Open a local file for reading."""
    return file.open("rb")


@dataclass(frozen=True)
class TensorInfo:
    """Location, dtype and shape of a stored tensor.

    Attributes:
        name: name of the tensor in the file.
        dtype: dtype as in the header, such as `BF16`.
        shape: shape of the tensor.
        file: the file that holds it.
        start: offset of the tensor's first byte in the file.
        end: offset after its last byte.
        opener: function that opens the file; for a Hub repository it returns a stream of HTTP range requests.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    end: int
    opener: Opener = field(default=open_local, compare=False, repr=False)

    def open(self) -> io.BufferedReader:
        """Open the file that holds the tensor."""
        return self.opener(self.file)

    @property
    def size_bytes(self) -> int:
        """Size of the raw data in bytes."""
        return self.end - self.start

    @property
    def n_elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """A validated header of a safetensors file.

    Attributes:
        tensors: tensors by name, in the order of their data.
        metadata: the strings under `__metadata__`.
        data_start: offset of the first byte of data; everything before it is the header.
        size_bytes: size of the whole file.
    """

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    data_start: int
    size_bytes: int


def read_header(file: Path) -> Header:
    """Read and validate the header of a safetensors file; the data is not read.

    Raises:
        ArtefactError: the file is missing or truncated, or violates the format.
    """
    if not file.is_file():
        raise ArtefactError(f"expected a safetensors file at {file}: there is none; download or save it again")
    with open_local(file) as stream:
        return read_header_from(stream, file=file, size_bytes=file.stat().st_size)


def read_header_from(stream: BinaryIO, *, file: Path, size_bytes: int, opener: Opener = open_local) -> Header:
    """Read and validate the header at the start of a stream.

    Args:
        stream: stream at the start of the file.
        file: path of the file, for messages.
        size_bytes: size of the whole file.
        opener: function that opens the file again, when a tensor's data is read.

    Raises:
        ArtefactError: the file is truncated, or violates the format.
    """
    prefix = stream.read(LENGTH_BYTES)
    if len(prefix) < LENGTH_BYTES:
        raise _broken(file, f"at least {LENGTH_BYTES} bytes", f"{len(prefix)}")
    if LFS_START.startswith(prefix) and (prefix + stream.read(len(LFS_START) - len(prefix))) == LFS_START:
        raise ArtefactError(
            f"{file} should hold tensors, found a git-lfs pointer, which stands for a file that was not downloaded: "
            "run git lfs pull in its repository, or download the file again"
        )
    (length,) = struct.unpack("<Q", prefix)
    if not 2 <= length <= min(MAX_HEADER_BYTES, size_bytes - LENGTH_BYTES):
        raise _broken(file, "a header that fits in the file", f"{length} bytes in a file of {size_bytes}")
    return parse_header(stream.read(length), file=file, size_bytes=size_bytes, opener=opener)


def parse_header(text: bytes, *, file: Path, size_bytes: int, opener: Opener = open_local) -> Header:
    """Parse and validate the JSON of a header.

    Args:
        text: bytes of the JSON, without the length before it.
        file: path of the file, for messages.
        size_bytes: size of the whole file.
        opener: function that opens the file again, when a tensor's data is read.

    Raises:
        ArtefactError: the JSON violates the format (the message names the tensor, the expected and the actual value).
    """
    data_start = LENGTH_BYTES + len(text)
    entries = _parse_json(text, file)
    metadata = _metadata(entries.pop("__metadata__", {}), file)
    tensors = [_tensor(name, entry, file, data_start, opener) for name, entry in entries.items()]
    tensors.sort(key=lambda tensor: (tensor.start, tensor.end))
    _check_cover(tensors, file, data_start, size_bytes)
    return Header({tensor.name: tensor for tensor in tensors}, metadata, data_start, size_bytes)


def _parse_json(text: bytes, file: Path) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise _broken(file, "a header that starts with '{'", repr(text[:8]))
    n_marks = text.count(b":") + text.count(b",")
    if n_marks > MAX_MARKS:  # before parsing, which takes twenty times the memory of the text
        raise _broken(file, f"a header of at most {MAX_MARKS:,} colons and commas", f"{n_marks:,}")
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise _broken(file, "a JSON header without duplicate keys", f"{error!s:.200}") from None
    if not isinstance(value, dict):
        raise _broken(file, "a JSON object as header", type(value).__name__)
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            raise ValueError(f"duplicate key {key!r:.80}")
        value[key] = item
    return value


def _metadata(value: object, file: Path) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise _broken(file, "__metadata__ as an object of strings", f"{value!r:.80}")
    return value


def _tensor(name: str, entry: object, file: Path, data_start: int, opener: Opener) -> TensorInfo:
    if not name or not name.isprintable():
        raise _broken(file, "printable tensor names", f"{name!r:.80}")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _broken(file, f"dtype, shape and data_offsets for {name!r:.80}", f"{entry!r:.80}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _broken(file, f"a known dtype for {name!r:.80}", f"{dtype!r:.40}")
    if not _sizes(shape):
        raise _broken(file, f"a shape of up to {MAX_DIMENSIONS} integers from 0 for {name!r:.80}", f"{shape!r:.80}")
    if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _broken(file, f"two rising data_offsets for {name!r:.80}", f"{offsets!r:.80}")
    n_bits = math.prod(shape) * BITS[dtype]
    if n_bits != 8 * (offsets[1] - offsets[0]):
        size = f"{n_bits / 8:g} bytes" if n_bits < MAX_SIZE else "a smaller shape"
        raise _broken(file, f"{size} for {name!r:.80} ({dtype} {shape!r:.80})", f"{offsets[1] - offsets[0]} bytes")
    return TensorInfo(name, dtype, tuple(shape), file, data_start + offsets[0], data_start + offsets[1], opener)


def _sizes(value: object) -> bool:
    if not isinstance(value, list) or len(value) > MAX_DIMENSIONS:
        return False
    return all(type(size) is int and 0 <= size < MAX_SIZE for size in value)


def _check_cover(tensors: list[TensorInfo], file: Path, data_start: int, size_bytes: int) -> None:
    """Check that the tensors, sorted by offset, fill the data up to the end of the file without gaps or overlaps."""
    at = data_start
    for tensor in tensors:
        if tensor.start != at:
            kind = "a gap" if tensor.start > at else "an overlap"
            raise _broken(
                file,
                "tensors that follow each other",
                f"{kind} of {abs(tensor.start - at)} bytes before {tensor.name!r:.80}",
            )
        at = tensor.end
    if at != size_bytes:
        raise _broken(file, f"{at} bytes, as its header says", f"{size_bytes}: it is truncated or has extra bytes")


def _broken(file: Path, expected: str, actual: str) -> ArtefactError:
    return ArtefactError(f"{file} should hold {expected}, found {actual}; download or save it again")
