"""The tensors of an ONNX graph whose values lie in other files, read from its protobuf without the onnx package.

ONNX Runtime opens such a file by the path that the graph states. Reading the statements first lets a bundle be checked
before a session exists, and its weights be passed from memory. Format: onnx.proto of ONNX 1.18 (field numbers below).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from prosocial.core.errors import ArtefactError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types; groups (3 and 4) are not used by ONNX
# For each message: the message that a field holds. A field that is not listed holds no tensor.
FIELDS = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
}
WEIGHT = ("Model.7", "Graph.5")  # an initializer of the main graph
DIMS, DATA_TYPE, NAME, EXTERNAL_DATA, DATA_LOCATION = 1, 2, 8, 13, 14
KEYS = {"location", "offset", "length", "checksum"}
DTYPES: dict[int, Any] = {
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    4: np.uint16,
    5: np.int16,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
    10: np.float16,
    11: np.float64,
    12: np.uint32,
    13: np.uint64,
}
DEEPEST = 64  # nested messages; a graph within a graph takes three


@dataclass(frozen=True)
class ExternalTensor:
    """An initializer of the main graph whose values lie in another file.

    Attributes:
        name: name of the initializer.
        dtype: numpy type of its values.
        shape: its shape.
        location: the file, as the graph states it.
        offset: first byte of the values in the file.
    """

    name: str
    dtype: Any
    shape: tuple[int, ...]
    location: str
    offset: int

    @property
    def size_bytes(self) -> int:
        """Number of bytes of the values."""
        size: int = np.dtype(self.dtype).itemsize
        for length in self.shape:
            size *= length
        return size


def external_tensors(graph: bytes, *, source: str) -> list[ExternalTensor]:
    """Return the initializers of a serialised ONNX model whose values lie in other files.

    Args:
        graph: bytes of the model.
        source: where it came from, for errors.

    Raises:
        ArtefactError: the bytes are not an ONNX model; a tensor elsewhere than in the main graph's initializers
            (subgraph, function, attribute, training, sparse) states another file; or a statement is ambiguous.
    """
    found, names = [], set()
    try:
        for way, raw in _tensors(memoryview(graph), "Model", ()):
            tensor = _external(raw)
            name = tensor.name if tensor else _name(raw)
            if way == WEIGHT and name in names:
                raise ArtefactError(f"two initializers are named {name!r}")
            if way == WEIGHT:
                names.add(name)
            if tensor and way != WEIGHT:
                raise ArtefactError(
                    f"only initializers of the main graph may lie in another file, found {name!r} in "
                    f"{'/'.join(way)} with {tensor.location!r}"
                )
            if tensor:
                found.append(tensor)
    except (ValueError, IndexError) as error:
        raise ArtefactError(f"{source} should load in ONNX Runtime: {error}; export the bundle again") from None
    return found


def _tensors(raw: memoryview, kind: str, way: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], memoryview]]:
    """Yield each tensor with the fields that lead to it."""
    if len(way) > DEEPEST:
        raise ValueError(f"its messages should nest at most {DEEPEST} deep")
    for field, wire, value in _fields(raw):
        inner = FIELDS[kind].get(field)
        if inner is None or wire != BYTES:
            continue
        place = (*way, f"{kind}.{field}")
        if inner == "Tensor":
            yield place, value
        else:
            yield from _tensors(value, inner, place)


def _external(raw: memoryview) -> ExternalTensor | None:
    """Return a tensor's statement of another file; None if it holds its values itself."""
    dims: list[int] = []
    entries: list[tuple[str, str]] = []
    kind = is_external = 0
    for field, wire, value in _fields(raw):
        if field == DIMS:
            dims += list(_varints(value)) if wire == BYTES else [value]
        elif field == DATA_TYPE and wire == VARINT:
            kind = value
        elif field == DATA_LOCATION and wire == VARINT:
            is_external = value
        elif field == EXTERNAL_DATA and wire == BYTES:
            entries.append(_entry(value))
    if not entries and not is_external:
        return None
    stated, name = dict(entries), _name(raw)
    if len(stated) < len(entries) or not set(stated) <= KEYS or "location" not in stated or is_external != 1:
        raise ValueError(f"{name!r} should state its file once, with {', '.join(sorted(KEYS))}, found {entries!r:.200}")
    if kind not in DTYPES:
        raise ValueError(f"{name!r} should have one of ONNX's types {sorted(DTYPES)} in another file, found {kind}")
    tensor = ExternalTensor(name, DTYPES[kind], tuple(dims), stated["location"], _number(stated.get("offset", "0")))
    length = _number(stated.get("length", "0"))
    if any(dim >= 1 << 63 for dim in dims) or length not in (0, tensor.size_bytes):
        raise ValueError(f"{name!r} of shape {dims} should have {tensor.size_bytes} bytes, found {length}")
    return tensor


def _name(raw: memoryview) -> str:
    """Return the last name that a tensor states, as protobuf reads it."""
    names = [bytes(value).decode("utf-8") for field, wire, value in _fields(raw) if (field, wire) == (NAME, BYTES)]
    return names[-1] if names else ""


def _entry(raw: memoryview) -> tuple[str, str]:
    parts = {field: bytes(value).decode("utf-8") for field, wire, value in _fields(raw) if wire == BYTES}
    return parts.get(1, ""), parts.get(2, "")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"an offset or length should be a whole number, found {text!r:.40}")
    return int(text)


def _fields(raw: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Yield number, wire type and value of each field of a message."""
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        field, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = _varint(raw, at)
            yield field, wire, value
            continue
        if wire == BYTES:
            size, at = _varint(raw, at)
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
        else:
            raise ValueError(f"it is no ONNX model, wire type {wire} at byte {at}")
        if at + size > len(raw):
            raise ValueError(f"it is no ONNX model, it ends {at + size - len(raw)} bytes early")
        yield field, wire, raw[at : at + size]
        at += size


def _varints(raw: memoryview) -> Iterator[int]:
    at = 0
    while at < len(raw):
        value, at = _varint(raw, at)
        yield value


def _varint(raw: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value & (1 << 64) - 1, at
        if shift >= 70:
            raise ValueError(f"it is no ONNX model, a number at byte {at} has more than 10 bytes")
