"""A header is taken only if the tensors cover the data exactly."""

import json
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from prosocial.core.errors import ArtefactError
from prosocial.editing.checkpoints.header import parse_header, read_header

from ...weights_helpers import write_raw

SHAPES = st.dictionaries(
    st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8),
    st.tuples(st.sampled_from([("F32", 4), ("BF16", 2), ("U8", 1)]), st.lists(st.integers(0, 3), max_size=3)),
    max_size=6,
)


def _entries(shapes: dict[str, tuple[tuple[str, int], list[int]]]) -> tuple[dict[str, Any], int]:
    at, entries = 0, {}
    for name, ((dtype, n_bytes), shape) in shapes.items():
        size = n_bytes * torch.Size(shape).numel()
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return entries, at


@given(SHAPES, st.integers(0, 9))
def test_any_sound_header_is_read_as_written(shapes: dict[str, Any], padding: int) -> None:
    entries, size = _entries(shapes)
    text = json.dumps(entries).encode() + b" " * padding
    header = parse_header(text, file=Path("x"), size_bytes=8 + len(text) + size)

    assert {name: [t.dtype, list(t.shape)] for name, t in header.tensors.items()} == {
        name: [entry["dtype"], entry["shape"]] for name, entry in entries.items()
    }
    assert sum(tensor.size_bytes for tensor in header.tensors.values()) == size


@given(SHAPES, st.integers(-4, 4).filter(bool))
def test_a_file_of_another_length_is_refused(shapes: dict[str, Any], change: int) -> None:
    entries, size = _entries(shapes)
    text = json.dumps(entries).encode()

    with pytest.raises(ArtefactError, match="should hold"):
        parse_header(text, file=Path("x"), size_bytes=8 + len(text) + size + change)


@given(st.binary(max_size=60))
def test_any_bytes_give_a_header_or_one_clear_error(text: bytes) -> None:
    try:
        parse_header(text, file=Path("x"), size_bytes=8 + len(text))
    except ArtefactError as error:
        assert "\n" not in str(error)


def test_it_agrees_with_the_library(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.ones(3, dtype=torch.bfloat16), "s": torch.tensor(2)}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    header = read_header(tmp_path / "x.safetensors")
    raw = (tmp_path / "x.safetensors").read_bytes()

    assert header.metadata == {"format": "pt"}
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        n: t.shape for n, t in header.tensors.items()
    }
    place = header.tensors["b"]
    assert raw[place.start : place.end] == struct.pack("<6f", *range(6))
    assert place.n_elements == 6


def _tensor(**changes: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"a": _tensor(data_offsets=[4, 12])}, "a gap of 4 bytes before 'a'"),
        ({"a": _tensor(), "b": _tensor(data_offsets=[4, 12])}, "an overlap of 4 bytes before 'b'"),
        ({"a": _tensor(shape=[3])}, "12 bytes for 'a'"),
        ({"a": _tensor(shape=[-2])}, "integers from 0"),
        ({"a": _tensor(shape=[True, 2])}, "integers from 0"),
        ({"a": _tensor(shape="2")}, "integers from 0"),
        ({"a": _tensor(data_offsets=[8, 0])}, "rising data_offsets"),
        ({"a": _tensor(data_offsets=[0])}, "rising data_offsets"),
        ({"a": _tensor(dtype="F33")}, "known dtype"),
        ({"a": _tensor(dtype=["F32"])}, "known dtype"),
        ({"a": _tensor(more=1)}, "dtype, shape and data_offsets"),
        ({"a": 3}, "dtype, shape and data_offsets"),
        ({"a\nb": _tensor()}, "printable"),
        ({"\ud800": _tensor()}, "printable"),
        ({"": _tensor()}, "printable"),
        ({"__metadata__": {"format": 1}, "a": _tensor()}, "object of strings"),
        (b'{"a": 1, "a": 2}', "duplicate key 'a'"),
        (b'{"a": {"dtype": "F32", "dtype": "F32"}}', "duplicate key 'dtype'"),
        (b'{"a": ' + b"[" * 100_000 + b"}", "JSON header"),
        (b'{"a": \xff}', "JSON header"),
        (b" {}", "starts with"),
        (b"[]", "starts with"),
    ],
)
def test_a_broken_header_is_refused_in_one_line(tmp_path: Path, entries: object, message: str) -> None:
    with pytest.raises(ArtefactError, match=message) as caught:
        read_header(write_raw(tmp_path / "x.safetensors", entries, bytes(12)))

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: b"", "at least 8 bytes"),
        (lambda raw: raw[:20], "fits in the file"),
        (lambda raw: raw[:-1], "truncated"),
        (lambda raw: raw + b"x", "extra bytes"),
        (lambda raw: struct.pack("<Q", 1 << 63) + raw[8:], "fits in the file"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    file = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(3)}, file)
    file.write_bytes(damage(file.read_bytes()))

    with pytest.raises(ArtefactError, match=message):
        read_header(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="there is none"):
        read_header(tmp_path / "x.safetensors")


def _filler(entry: bytes, n_bytes: int) -> bytes:
    """Return a JSON object of many distinct entries."""
    n = n_bytes // (len(entry) + 12)
    return b"{" + b",".join(b'"%08d":%s' % (at, entry) for at in range(n)) + b"}"


def _entry(*, name: str = "a", dtype: str = "F32", shape: str = "[2]", offsets: str = "[0,8]") -> bytes:
    return f'{{"{name}": {{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}'.encode()


LARGE = str(2**63 - 1)
HOSTILE = {
    "an integer of 4,000 digits": (_entry(shape="[" + "9" * 4000 + "]"), "integers from 0"),
    "an integer of 5,000 digits": (_entry(shape="[" + "9" * 5000 + "]"), "JSON header"),
    "a million dimensions": (_entry(shape=f"[{','.join([LARGE] * 10**6)}]"), "up to 64 integers"),
    "a product that no float holds": (_entry(shape=f"[{','.join([LARGE] * 64)}]"), "a smaller shape for 'a'"),
    "offsets past 64 bits": (_entry(offsets="[0,18446744073709551624]"), "rising data_offsets"),
    "fractions": (_entry(shape="[2.0]"), "integers from 0"),
    "infinity": (_entry(shape="[1e999]"), "integers from 0"),
    "a long name": (_entry(name="a" * 10**6, shape="[3]"), "12 bytes for"),
    "a long dtype": (_entry(dtype="F" * 10**6), "known dtype"),
    "nested objects": (b'{"a":' * 10**5, "JSON header"),
    "nested lists": (b'{"a":' + b"[" * 10**6, "JSON header"),
    "many small entries": (_filler(b"0", 80 << 20), "at most 10,000,000 colons"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_is_refused_at_once_in_one_short_line(tmp_path: Path, name: str) -> None:
    text, message = HOSTILE[name]
    file = write_raw(tmp_path / "x.safetensors", text, bytes(8))
    started = time.process_time()
    with pytest.raises(ArtefactError, match=message) as caught:
        read_header(file)

    assert time.process_time() - started < 2
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(file)) + 400


def test_a_header_length_past_the_file_is_refused_without_reading_it(tmp_path: Path) -> None:
    file = tmp_path / "hole.safetensors"
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", 1 << 40))
        stream.truncate(1 << 41)
    with pytest.raises(ArtefactError, match="a header that fits in the file"):
        read_header(file)


def test_a_git_lfs_pointer_is_named_as_such(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "ab" * 32 + "\nsize 4976698672\n"
    (tmp_path / "model.safetensors").write_text(pointer)
    with pytest.raises(ArtefactError, match=r"found a git-lfs pointer.*git lfs pull"):
        read_header(tmp_path / "model.safetensors")
