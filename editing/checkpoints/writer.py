"""A safetensors file written tensor by tensor, when it is not known beforehand which tensors it will hold."""

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, Self

from .header import LENGTH_BYTES

ENTRY_BYTES = 160  # JSON around a name: dtype, offsets of up to 20 digits each
SIZE_BYTES = 21  # one size of a shape


class TensorWriter:
    """Writes data in the order it comes; the header goes into space reserved for every tensor that may come.

    A context manager, which closes the file.

    Args:
        file: the new file.
        expected: name and shape of every tensor that may be written.
        metadata_bytes: room for the free texts that `finish` is given.
    """

    def __init__(
        self, file: Path, expected: Iterable[tuple[str, tuple[int, ...]]], *, metadata_bytes: int = 4096
    ) -> None:
        self._entries: dict[str, object] = {}
        size = metadata_bytes + sum(
            len(json.dumps(name)) + ENTRY_BYTES + SIZE_BYTES * len(shape) for name, shape in expected
        )
        self._header_bytes = size + (-size % 8)  # data starts aligned
        self._stream: BinaryIO = file.open("wb")
        self._stream.seek(LENGTH_BYTES + self._header_bytes)
        self._at = 0

    def write(self, name: str, dtype: str, shape: tuple[int, ...], *data: bytes | memoryview) -> None:
        """Append one tensor's raw bytes (little endian), in one part or several."""
        n_bytes = sum(self._stream.write(part) for part in data)
        self._entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [self._at, self._at + n_bytes]}
        self._at += n_bytes

    def finish(self, metadata: Mapping[str, str]) -> None:
        """Write the header: without it the file is none."""
        text = json.dumps({"__metadata__": dict(metadata), **self._entries}, separators=(",", ":")).encode()
        if len(text) > self._header_bytes:
            raise ValueError(f"the header should fit in {self._header_bytes} bytes, it needs {len(text)}")
        self._stream.seek(0)
        self._stream.write(struct.pack("<Q", self._header_bytes) + text.ljust(self._header_bytes))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
