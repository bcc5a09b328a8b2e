"""A patch that turns an edited checkpoint back into its base bit for bit: the compressed XOR of both.

The file is a safetensors file of U8 tensors `name::k`, one for each block k of a changed tensor. A block is BLOCK_BYTES
of `base XOR edited`, grouped into byte planes (first bytes of all elements, then second bytes and so on, because high
bytes rarely change) and compressed with zlib. The metadata holds both fingerprints.
"""

import json
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prosocial.core.errors import ArtefactError, InputError
from prosocial.core.files import written_alone

from ..checkpoints.digests import stream_tensor
from ..checkpoints.folder import Checkpoint
from ..checkpoints.header import BITS, Header, TensorInfo, read_header
from ..checkpoints.writer import TensorWriter
from .record import EditRecord

SCHEMA = "prosocial.edit_patch/1"
BLOCK_BYTES = 1 << 22
MAX_PACKED_BYTES = BLOCK_BYTES + (BLOCK_BYTES >> 10) + 64  # zlib stores what it cannot compress: 5 bytes per 16 KiB
LEVEL = 1  # zlib level: higher levels save a few percent and take many times as long


def write_patch(base: Checkpoint, edited: Checkpoint, file: Path, record: EditRecord) -> None:
    """Write the patch that undoes an edit.

    Args:
        base: the checkpoint before the edit.
        edited: the checkpoint after the edit, with the same layout.
        file: path of the new patch.
        record: record of the edit.

    Raises:
        InputError: the file is not the patch of this edit, which a killed process left.
        StorageError: the disk is full, or writing is not permitted.
    """
    names = [name for name, tensor in record.result.tensors.items() if tensor.changed]
    expected = [(key, (BLOCK_BYTES,)) for name in names for key in _keys(base.tensors[name])]
    if file.exists():
        _require_same_edit(file, record)
    with written_alone(file) as aside, TensorWriter(aside, expected) as writer, ThreadPoolExecutor() as pool:
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


def _require_same_edit(file: Path, record: EditRecord) -> None:
    metadata = read_header(file).metadata
    if (metadata.get("base"), metadata.get("edited")) != (record.base.fingerprint, record.result.fingerprint):
        raise InputError(f"{file} should not exist yet, or be the patch of this edit: choose another name or delete it")


def open_patch(file: Path, record: EditRecord, edited: Checkpoint) -> Header:
    """Read a patch's header and check that the patch belongs to an edit; no block is read.

    Args:
        file: path of the patch.
        record: record of the edit.
        edited: the edited checkpoint.

    Raises:
        ArtefactError: the file is not a patch, is the patch of another edit, or holds a block that the edit cannot
            have, such as one of more bytes than zlib needs for it.
    """
    header = read_header(file)
    metadata = header.metadata
    if metadata.get("schema") != SCHEMA:
        raise ArtefactError(
            f"{file} should be a patch of schema {SCHEMA!r}, found {metadata.get('schema')!r}: use the patch that was "
            "written with this edit"
        )
    if (metadata.get("base"), metadata.get("edited")) != (record.base.fingerprint, record.result.fingerprint):
        raise ArtefactError(
            f"{file} should belong to this edit, found a patch from {str(metadata.get('base'))[:16]} to "
            f"{str(metadata.get('edited'))[:16]}: use the patch that was written with this edit"
        )
    known = {key for tensor in edited.tensors.values() for key in _keys(tensor)}
    for block in header.tensors.values():
        if block.name not in known or block.dtype != "U8" or block.size_bytes > MAX_PACKED_BYTES:
            raise ArtefactError(
                f"{file} should hold blocks of the edit's tensors, of at most {MAX_PACKED_BYTES:,} bytes each, found "
                f"{block.name!r:.80} in {block.dtype} of {block.size_bytes:,} bytes; restore from the base instead"
            )
    return header


def patched(edited: TensorInfo, patch: Header) -> Iterator[bytes]:
    """Yield the base's raw bytes of a tensor, block by block; a tensor without blocks in the patch is unchanged.

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
        raise ArtefactError(
            f"{block.file} should hold {key} as valid zlib data: {error}; restore from the base instead"
        ) from None
    if len(planes) != len(piece):
        raise ArtefactError(
            f"{block.file} should hold {len(piece)} bytes of {key}, found {len(planes)}; restore from the base instead"
        )
    difference = np.frombuffer(planes, np.uint8).reshape(width, -1).T.reshape(-1)
    return (np.frombuffer(piece, np.uint8) ^ difference).tobytes()


def _keys(tensor: TensorInfo) -> list[str]:
    return [f"{tensor.name}::{k}" for k in range(-(-tensor.size_bytes // BLOCK_BYTES))]


def _width(tensor: TensorInfo) -> int:
    """Return the bytes of an element, at least 1 (packed dtypes have several elements in a byte)."""
    return max(1, BITS[tensor.dtype] // 8)


def _differences(base: TensorInfo, edited: TensorInfo) -> Iterator[NDArray[np.uint8]]:
    """Yield each block of `base XOR edited`, grouped into byte planes."""
    pieces = zip(
        stream_tensor(base, chunk_bytes=BLOCK_BYTES), stream_tensor(edited, chunk_bytes=BLOCK_BYTES), strict=True
    )
    for before, after in pieces:
        difference = np.frombuffer(before, np.uint8) ^ np.frombuffer(after, np.uint8)
        yield np.ascontiguousarray(difference.reshape(-1, _width(base)).T)


def _in_order(pool: ThreadPoolExecutor, blocks: Iterator[NDArray[np.uint8]]) -> Iterator[bytes]:
    """Yield the compressed blocks in order, a few at a time so that memory does not grow with the tensor."""
    while batch := list(islice(blocks, 4)):
        yield from pool.map(lambda block: zlib.compress(block, LEVEL), batch)
