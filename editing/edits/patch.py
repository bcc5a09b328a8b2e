"""A patch that turns an edited checkpoint back into its base, bit for bit: the exclusive or of both, compressed.

A safetensors file of U8 tensors `name::k`: block k of a changed tensor, BLOCK_BYTES of `base XOR edited`, its bytes
sorted by place in the element (high bytes change seldom), zlib. The metadata names both fingerprints.
"""

import json
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prosocial.core.errors import ArtefactError
from prosocial.core.files import written_aside

from ..checkpoints.digests import stream_tensor
from ..checkpoints.folder import Checkpoint
from ..checkpoints.header import BITS, Header, TensorInfo, read_header
from ..checkpoints.writer import TensorWriter
from .record import EditRecord

SCHEMA = "prosocial.edit_patch/1"
BLOCK_BYTES = 1 << 22
LEVEL = 1  # of zlib: higher ones gain a few percent and take many times as long


def write_patch(base: Checkpoint, edited: Checkpoint, file: Path, record: EditRecord) -> None:
    """Write the patch of an edit, aside first, then renamed.

    Args:
        base, edited: checkpoints of one layout.
        file: the new file.
        record: of the edit.

    Raises:
        StorageError: not enough room, or no permission.
    """
    names = [name for name, tensor in record.result.tensors.items() if tensor.changed]
    expected = [(key, (BLOCK_BYTES,)) for name in names for key in _keys(base.tensors[name])]
    with written_aside(file) as aside, TensorWriter(aside, expected) as writer, ThreadPoolExecutor() as pool:
        for name in names:
            blocks = _differences(base.tensors[name], edited.tensors[name])
            for key, packed in zip(_keys(base.tensors[name]), _in_order(pool, blocks), strict=True):
                writer.write(key, "U8", (len(packed),), packed)
        writer.finish(
            {
                "schema": SCHEMA,
                "base": record.base.fingerprint,
                "edited": record.result.fingerprint,
                "blocks": json.dumps({name: len(_keys(base.tensors[name])) for name in names}),
            }
        )


def open_patch(file: Path, record: EditRecord) -> Header:
    """Read a patch's header and check that it belongs to an edit.

    Raises:
        ArtefactError: it is no patch, or another edit's.
    """
    header = read_header(file)
    said = header.metadata
    if said.get("schema") != SCHEMA:
        raise ArtefactError(f"{file} should be a patch of schema {SCHEMA!r}, found {said.get('schema')!r}")
    if (said.get("base"), said.get("edited")) != (record.base.fingerprint, record.result.fingerprint):
        raise ArtefactError(
            f"{file} should belong to this edit, found one from {str(said.get('base'))[:16]} to "
            f"{str(said.get('edited'))[:16]}: take the patch written with it"
        )
    return header


def patched(edited: TensorInfo, patch: Header) -> Iterator[bytes]:
    """Yield the base's bytes of a tensor, block by block; the edited ones where the patch holds nothing of it.

    Raises:
        ArtefactError: a block is missing or broken.
    """
    keys = _keys(edited)
    changed = any(key in patch.tensors for key in keys)
    for key, piece in zip(keys, stream_tensor(edited, chunk_bytes=BLOCK_BYTES), strict=True):
        yield _restore(piece, patch, key, _width(edited)) if changed else bytes(piece)


def _restore(piece: memoryview, patch: Header, key: str, width: int) -> bytes:
    block = patch.tensors.get(key)
    if block is None:
        raise ArtefactError(f"the patch should hold {key}: it is missing; restore from the base instead")
    try:
        packed = b"".join(map(bytes, stream_tensor(block)))
        planes = zlib.decompressobj().decompress(packed, len(piece) + 1)
    except zlib.error as error:
        raise ArtefactError(f"{block.file} should hold {key} whole, found {error}; restore from the base") from None
    if len(planes) != len(piece):
        raise ArtefactError(f"{block.file} should hold {len(piece)} bytes of {key}, found {len(planes)}")
    difference = np.frombuffer(planes, np.uint8).reshape(width, -1).T.reshape(-1)
    return (np.frombuffer(piece, np.uint8) ^ difference).tobytes()


def _keys(tensor: TensorInfo) -> list[str]:
    return [f"{tensor.name}::{k}" for k in range(-(-tensor.size_bytes // BLOCK_BYTES))]


def _width(tensor: TensorInfo) -> int:
    """Bytes of an element; packed dtypes below a byte count as one."""
    return max(1, BITS[tensor.dtype] // 8)


def _differences(base: TensorInfo, edited: TensorInfo) -> Iterator[NDArray[np.uint8]]:
    """Yield each block of `base XOR edited`, sorted by place in the element."""
    pieces = zip(
        stream_tensor(base, chunk_bytes=BLOCK_BYTES), stream_tensor(edited, chunk_bytes=BLOCK_BYTES), strict=True
    )
    for before, after in pieces:
        difference = np.frombuffer(before, np.uint8) ^ np.frombuffer(after, np.uint8)
        yield np.ascontiguousarray(difference.reshape(-1, _width(base)).T)


def _in_order(pool: ThreadPoolExecutor, blocks: Iterator[NDArray[np.uint8]]) -> Iterator[bytes]:
    """Yield compressed blocks in order, a few at a time, so that memory does not grow with the tensor."""
    while batch := list(islice(blocks, 4)):
        yield from pool.map(lambda block: zlib.compress(block, LEVEL), batch)
