"""A damaged or hostile GGUF file: one line that says what is wrong, soon, in little memory, and nothing is written."""

import shutil
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

gguf = pytest.importorskip("gguf")

from prosocial.cli.main import main  # noqa: E402
from prosocial.core.errors import ProsocialError  # noqa: E402
from prosocial.editing import convert_gguf  # noqa: E402
from prosocial.editing.gguf import header as gguf_header  # noqa: E402
from prosocial.editing.gguf import read_gguf_header  # noqa: E402

from ...fuzz.mutations import damaged_bytes  # noqa: E402
from .writing import add_byte_level, add_sentencepiece, write_gguf  # noqa: E402

HUGE = 2**63
Spoil = Callable[[Path], object]


def patched(at: int, kind: str, value: int) -> Spoil:
    """Return a step that overwrites a number at a place in the file."""

    def spoil(file: Path) -> None:
        data = bytearray(file.read_bytes())
        struct.pack_into(kind, data, at, value)
        file.write_bytes(data)

    return spoil


def cut(length: int) -> Spoil:
    """Return a step that keeps the first bytes only; with a negative length, all but the last."""
    return lambda file: file.write_bytes(file.read_bytes()[:length])


def made(pairs: bytes = b"", *, n_pairs: int = 1, n_tensors: int = 0, version: int = 3, rest: bytes = b"") -> Spoil:
    """Return a step that writes a file of raw parts."""
    head = b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_pairs)
    return lambda file: file.write_bytes(head + pairs + rest)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def tensor(name: str, offset: int, *, shape: tuple[int, ...] = (8,), kind: int = 0) -> bytes:
    sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + sizes + struct.pack("<IQ", kind, offset)


def array(key: str, kind: int, length: int) -> bytes:
    return text(key) + struct.pack("<IIQ", 9, kind, length)


def written(**given: Any) -> Spoil:
    """Return a step that writes a whole file with something wrong in it."""
    return lambda file: write_gguf(file, **given)


def pair(key: str, value: Any, kind: str = "uint32") -> Spoil:
    """Return a step that writes a file in which one pair has another value."""

    def more(writer: gguf.GGUFWriter) -> None:
        for pairs in writer.kv_data:
            pairs.pop(key, None)
        getattr(writer, f"add_{kind}")(key, value)

    return written(more=more)


def change(name: str, make: Callable[[Any], Any]) -> Spoil:
    """Return a step that writes a file with one other tensor; None leaves it out."""

    def spoil(tensors: dict[str, Any]) -> None:
        value = make(tensors.pop(name, None))
        if value is not None:
            tensors[name] = value

    return written(change=spoil)


def other_words(key: str, value: list[Any]) -> Spoil:
    def vocabulary(writer: gguf.GGUFWriter) -> None:
        add_byte_level(writer)
        for other in (key, f"{TOKENIZER}.token_type", f"{TOKENIZER}.eos_token_id"):
            writer.kv_data[0].pop(other, None)
        writer.add_array(key, value)

    return written(vocabulary=vocabulary)


TOKENIZER = "tokenizer.ggml"
CASES: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    # the format
    "an empty file": (cut(0), ("should be a GGUF file",)),
    "another file": (lambda file: file.write_bytes(b"PK\3\4" * 99), ("should be a GGUF file",)),
    "cut in the start": (cut(20), ("should be a GGUF file",)),
    "cut in the pairs": (cut(90), ("truncated",)),
    "cut in the vocabulary": (cut(1500), ("truncated",)),
    "cut in the data": (cut(-100), ("bytes up to the end of", "truncated")),
    "version 1": (made(version=1), ("version 2 or 3", "version 1")),
    "big endian": (made(version=3 << 24), ("little endian",)),
    "very many tensors": (patched(8, "<Q", HUGE), ("at most 100,000 tensors",)),
    "very many pairs": (patched(16, "<Q", HUGE), ("at most 100,000 pairs",)),
    "more pairs than there are": (made(n_pairs=99_999), ("truncated",)),
    "a very long text": (made(struct.pack("<Q", HUGE)), ("truncated",)),
    "a text that is no UTF-8": (made(struct.pack("<Q", 2) + b"\xff\xfe"), ("UTF-8",)),
    "a very long array of numbers": (made(array("a", 10, HUGE)), ("at most", "elements")),
    "a very long array of texts": (made(array("a", 8, HUGE)), ("at most", "elements")),
    "long arrays, each short enough": (
        made(b"".join(array(str(i), 0, 9_000_000) + bytes(9_000_000) for i in range(2)), n_pairs=2),
        ("at most 1,000,000 elements",),
    ),
    "an array of arrays": (made(array("a", 9, 1)), ("known type", "type 9")),
    "an unknown type of value": (made(text("a") + struct.pack("<I", 77)), ("known type", "type 77")),
    "a key twice": (made((text("a") + struct.pack("<IB", 0, 1)) * 2, n_pairs=2), ("'a' twice",)),
    "a tensor twice": (
        made(tensor("a", 0) + tensor("a", 32), n_pairs=0, n_tensors=2, rest=bytes(128)),
        ("'a' twice",),
    ),
    "tensors that overlap": (
        made(tensor("a", 0) + tensor("b", 0), n_pairs=0, n_tensors=2, rest=bytes(128)),
        ("the data of 'b' at 32", "found 0"),
    ),
    "a tensor far away": (
        made(tensor("a", HUGE), n_pairs=0, n_tensors=1, rest=bytes(128)),
        ("the data of 'a' at 0",),
    ),
    "a tensor of very many elements": (
        made(tensor("a", 0, shape=(2**40, 2**40)), n_pairs=0, n_tensors=1, rest=bytes(128)),
        ("truncated",),
    ),
    "very many dimensions": (
        made(text("a") + struct.pack("<I", 2**31), n_pairs=0, n_tensors=1, rest=bytes(64)),
        ("at most 4 dimensions",),
    ),
    "a shape with a zero": (
        made(tensor("a", 0, shape=(0, 4)), n_pairs=0, n_tensors=1, rest=bytes(64)),
        ("shapes without zeros",),
    ),
    "a name with a line break": (
        made(tensor("a\nb", 0), n_pairs=0, n_tensors=1, rest=bytes(64)),
        ("printable names",),
    ),
    "an unknown type of tensor": (made(tensor("a", 0, kind=999), n_pairs=0, n_tensors=1), ("type 999",)),
    "half a block": (made(tensor("a", 0, shape=(8,), kind=8), n_pairs=0, n_tensors=1), ("blocks of 32 (Q8_0)",)),
    "an odd alignment": (pair("general.alignment", 48), ("power of two",)),
    # what the file is
    "a part of a split model": (
        pair("split.count", 3, "uint16"),
        ("one of 3 parts", "llama-gguf-split --merge"),
    ),
    "an adapter": (pair("general.type", "adapter", "string"), ("causal language model", "'adapter'")),
    "a vision projector": (pair("general.type", "mmproj", "string"), ("causal language model", "'mmproj'")),
    "an encoder": (pair("general.architecture", "bert", "string"), ("'bert in ", "known are gemma2, gemma3, llama")),
    "no architecture": (made(n_pairs=0), ("'unnamed in ", "known are")),
    "an architecture that is a number": (pair("general.architecture", 7), ("'unnamed in ", "known are")),
    # settings
    "a missing setting": (written(more=lambda w: w.kv_data[0].pop("llama.block_count")), ("llama.block_count",)),
    "very many layers": (pair("llama.block_count", 10**6), ("as block_count", "1000000")),
    "more layers than weights": (pair("llama.block_count", 3), ("the weights of llama", "9 too few")),
    "fewer layers than weights": (pair("llama.block_count", 1), ("the weights of llama", "too many")),
    "very wide": (pair("llama.embedding_length", 2**31), ("as embedding_length",)),
    "no heads": (pair("llama.attention.head_count", 0), ("as attention.head_count", "found 0")),
    "heads that do not divide": (pair("llama.attention.head_count_kv", 3), ("model.gguf",)),
    "a text as a size": (pair("llama.block_count", "many", "string"), ("as block_count", "'many'")),
    "a norm of NaN": (
        pair("llama.attention.layer_norm_rms_epsilon", float("nan"), "float32"),
        ("a positive number as attention.layer_norm_rms_epsilon", "nan"),
    ),
    "an endless base": (pair("llama.rope.freq_base", float("inf"), "float32"), ("as rope.freq_base", "inf")),
    "half of each head turns": (pair("llama.rope.dimension_count", 8), ("heads of one size", "rope.dimension_count")),
    "an unknown scaling": (pair("llama.rope.scaling.type", "longrope", "string"), ("linear or yarn", "'longrope'")),
    "a scaling without a factor": (pair("llama.rope.scaling.type", "linear", "string"), ("rope.scaling.factor",)),
    "factors of another scaling": (
        change("rope_freqs.weight", lambda _: np.linspace(1, 9, 8, dtype=np.float32)),
        ("rope_freqs.weight as Llama 3.1",),
    ),
    "factors of zero": (change("rope_freqs.weight", lambda _: np.zeros(8, np.float32)), ("rope_freqs.weight",)),
    # weights
    "a weight is missing": (change("blk.1.attn_q.weight", lambda _: None), ("nothing for model.layers.1.self_attn",)),
    "a weight too many": (change("blk.0.attn_q.bias", lambda _: np.ones(64, np.float32)), ("also blk.0.attn_q.bias",)),
    "no embeddings": (change("token_embd.weight", lambda _: None), ("token_embd.weight",)),
    "a transposed weight": (change("blk.0.ffn_up.weight", lambda value: value.T.copy()), ("(96, 64)", "(64, 96)")),
    "a weight of another size": (change("blk.0.ffn_up.weight", lambda value: value[:32]), ("(96, 64)", "(32, 64)")),
    "NaN": (
        change("output_norm.weight", lambda value: value * np.float32("nan")),
        ("model.norm.weight should hold numbers that are finite", "64 are not"),
    ),
    "numbers of 8 bits": (change("output_norm.weight", lambda value: value.astype(np.int8)), ("dequantises", "in I8")),
    # the tokenizer
    "no tokens": (written(vocabulary=lambda writer: None), ("a vocabulary (tokenizer.ggml.tokens)",)),
    "an unknown tokenizer": (pair(f"{TOKENIZER}.model", "magic", "string"), ("a tokenizer", "magic")),
    "no tokenizer": (
        written(vocabulary=lambda w: (add_sentencepiece(w), w.kv_data[0].pop(f"{TOKENIZER}.model"))),
        ("a tokenizer",),
    ),
    "an end that is no token": (pair(f"{TOKENIZER}.eos_token_id", 10**9), ("one of 200 tokens", "1000000000")),
    "too few scores": (pair(f"{TOKENIZER}.scores", [0.5, 1.5], "array"), ("200 numbers as tokenizer.ggml.scores",)),
    "no scores": (
        written(vocabulary=lambda w: (add_sentencepiece(w), w.kv_data[0].pop(f"{TOKENIZER}.scores"))),
        ("a tokenizer",),
    ),
    "merges of three": (other_words(f"{TOKENIZER}.merges", ["a b c"]), ("pairs of tokens",)),
    "merges of no tokens": (other_words(f"{TOKENIZER}.merges", ["é è"]), ("a tokenizer",)),
    "a very long token": (other_words(f"{TOKENIZER}.tokens", ["a" * 10**6]), ("1,000,000 characters",)),
    "more tokens than embeddings": (
        other_words(
            f"{TOKENIZER}.tokens",
            ["Ġ", *"abcdefghijklmnopqrstuvwxyz", "th", "the", "Ġthe", "at", *map(str, range(999))],
        ),
        ("embedding",),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_one_line_and_nothing_is_written(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, fragments = CASES[name]
    file = tmp_path / "model.gguf"
    if "cut" in name or "very many" in name or name == "an empty file":
        write_gguf(file)
    spoil(file)

    code = main(["convert", str(file), "-o", str(tmp_path / "out")])

    printed = capsys.readouterr().err
    assert code == 2 and printed.startswith("error: ") and printed.count("\n") == 1, printed
    for fragment in fragments:
        assert fragment in printed
    assert {path.name for path in tmp_path.iterdir()} == {"model.gguf"}


def test_a_header_is_read_in_the_memory_of_its_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts are compared with bounds before anything is allocated for them."""
    monkeypatch.setattr(gguf_header, "MAX_ELEMENTS", 1000)
    file = tmp_path / "model.gguf"
    for parts in (array("a", 8, 1001), array("a", 10, 1001)):
        made(parts, rest=bytes(10**6))(file)
        tracemalloc.start()
        with pytest.raises(ProsocialError, match="at most 1,000 elements"):
            read_gguf_header(file)
        assert tracemalloc.get_traced_memory()[1] < 10**5
        tracemalloc.stop()


def test_damaged_files_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    file, out = tmp_path / "model.gguf", tmp_path / "out"
    write_gguf(file, vocabulary=add_byte_level)
    valid = file.read_bytes()
    n_header = valid.index(b"x150")  # the data of weights may be anything

    @settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.one_of(damaged_bytes(valid[:n_header]).map(lambda start: start + valid[n_header:]), damaged_bytes(valid)))
    def holds(damaged: bytes) -> None:
        file.write_bytes(damaged)
        started = time.monotonic()
        try:
            convert_gguf(file, out)
        except ProsocialError as error:
            assert "\n" not in str(error) and len(str(error)) < 2000
            assert not out.exists()
        assert time.monotonic() - started < 20
        shutil.rmtree(out, ignore_errors=True)

    holds()
