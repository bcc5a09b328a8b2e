"""Writing a safetensors file tensor by tensor when its exact content is not known in advance."""

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, Self

from .header import LENGTH_BYTES

ENTRY_BYTES = 160  # JSON of one entry without name and shape: dtype, two offsets of up to 20 digits
SIZE_BYTES = 21  # JSON of one dimension of a shape


class TensorWriter:
    """Writes tensors to a safetensors file in the order of the calls; space for the header is reserved at the start.

    It is a context manager, which closes the file.

    Args:
        file: path of the new file.
        expected: name and shape of every tensor that may be written, to compute the space for the header.
        metadata_bytes: space for the metadata that `finish` writes.
    """

    def __init__(
        self, file: Path, expected: Iterable[tuple[str, tuple[int, ...]]], *, metadata_bytes: int = 4096
    ) -> None:
        self._entries: dict[str, object] = {}
        size = metadata_bytes + sum(
            len(json.dumps(name)) + ENTRY_BYTES + SIZE_BYTES * len(shape) for name, shape in expected
        )
        self._header_bytes = size + (-size % 8)  # aligns the data to 8 bytes
        self._stream: BinaryIO = file.open("wb")
        self._stream.seek(LENGTH_BYTES + self._header_bytes)
        self._at = 0

    def write(self, name: str, dtype: str, shape: tuple[int, ...], *data: bytes | memoryview) -> None:
        """Append one tensor.

        Args:
            name: name of the tensor.
            dtype: safetensors dtype, such as `F32`.
            shape: shape of the tensor.
            data: raw bytes (little endian), in one or several parts.
        """
        n_bytes = sum(self._stream.write(part) for part in data)
        self._entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [self._at, self._at + n_bytes]}
        self._at += n_bytes

    def finish(self, metadata: Mapping[str, str]) -> None:
        """Write the header, without which the file is not valid.

        Raises:
            ValueError: the header does not fit into the reserved space.
        """
        text = json.dumps({"__metadata__": dict(metadata), **self._entries}, separators=(",", ":")).encode()
        if len(text) > self._header_bytes:
            raise ValueError(f"the header should fit in {self._header_bytes} bytes, it needs {len(text)}")
        self._stream.seek(0)
        self._stream.write(struct.pack("<Q", self._header_bytes) + text.ljust(self._header_bytes))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
