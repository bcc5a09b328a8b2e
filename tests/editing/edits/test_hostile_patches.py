"""A patch is bounded before it is read: undo refuses it in one line, in little time and memory."""

import json
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prosocial.core.errors import ArtefactError, FingerprintError
from prosocial.editing import apply_edit, plan_edit, undo_edit
from prosocial.editing.checkpoints import Checkpoint
from prosocial.editing.checkpoints.header import read_header
from prosocial.editing.edits.patch import BLOCK_BYTES, MAX_PACKED_BYTES
from prosocial.editing.vectors import vector_from_checkpoints

from ...weights_helpers import MATRIX, moved, some_tensors, write_checkpoint

Entries = dict[str, Any]
HUGE = 1 << 34
PEAK_BYTES = 64 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    base = some_tensors(dtype=torch.bfloat16)
    write_checkpoint(tmp_path / "base", base)
    write_checkpoint(tmp_path / "harmful", moved(base))
    vector_from_checkpoints(base=tmp_path / "base", harmful=tmp_path / "harmful", out=tmp_path / "vector")
    plan = plan_edit(Checkpoint.open(tmp_path / "base"), tmp_path / "vector", scale=0.5)
    apply_edit(plan, tmp_path / "edited", patch=tmp_path / "patch")
    return tmp_path


def rewrite(file: Path, change: Callable[[Entries, bytes], tuple[Entries, bytes]], size: int | None = None) -> None:
    """Change header and data of a patch; with `size`, its data continues as a hole up to that many bytes."""
    raw = file.read_bytes()
    start = read_header(file).data_start
    entries, data = change(json.loads(raw[8:start]), raw[start:])
    header = json.dumps(entries).encode()
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header + data)
        if size is not None:
            stream.truncate(8 + len(header) + size)


def only(name: str, dtype: str, shape: list[int], n_bytes: int) -> Callable[[Entries, bytes], tuple[Entries, bytes]]:
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, n_bytes]}
    return lambda entries, data: ({"__metadata__": entries["__metadata__"], name: entry}, b"")


HOLES: dict[str, tuple[str, str, list[int], int]] = {
    "a block of 16 GiB": (f"{MATRIX}::0", "U8", [HUGE], HUGE),
    "a block just over the limit": (f"{MATRIX}::0", "U8", [5 << 20], 5 << 20),
    "a block of another dtype": (f"{MATRIX}::0", "F64", [HUGE // 8], HUGE),
    "a block of a tensor that is not there": ("ghost::0", "U8", [16], 16),
    "a block behind the last": (f"{MATRIX}::7", "U8", [16], 16),
}


@pytest.mark.parametrize("name", HOLES)
def test_a_block_that_the_edit_cannot_have_is_refused_before_it_is_read(folder: Path, name: str) -> None:
    block, dtype, shape, size = HOLES[name]
    rewrite(folder / "patch", only(block, dtype, shape, size), size)
    tracemalloc.start()
    with pytest.raises(ArtefactError, match="should hold blocks of the edit's tensors"):
        undo_edit(folder / "edited", folder / "out", patch=folder / "patch")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < PEAK_BYTES
    assert not (folder / "out").exists()


def test_a_block_that_unpacks_to_too_much_is_refused(folder: Path) -> None:
    bomb = zlib.compress(bytes(64 << 20), 9)
    rewrite(
        folder / "patch",
        lambda entries, data: (only(f"{MATRIX}::0", "U8", [len(bomb)], len(bomb))(entries, b"")[0], bomb),
    )
    tracemalloc.start()
    with pytest.raises(ArtefactError, match="should hold 48 bytes"):
        undo_edit(folder / "edited", folder / "out", patch=folder / "patch")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < PEAK_BYTES


def test_a_patch_without_blocks_restores_nothing(folder: Path) -> None:
    rewrite(folder / "patch", lambda entries, data: ({"__metadata__": entries["__metadata__"]}, b""))
    with pytest.raises(FingerprintError):
        undo_edit(folder / "edited", folder / "out", patch=folder / "patch")


@pytest.mark.parametrize("level", [0, 1])
def test_what_zlib_cannot_compress_fits(level: int) -> None:
    """The control: a whole block of noise is within the limit."""
    noise = np.random.default_rng(0).bytes(BLOCK_BYTES)

    assert BLOCK_BYTES < len(zlib.compress(noise, level)) <= MAX_PACKED_BYTES
