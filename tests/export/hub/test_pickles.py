"""A file that can run code when it is loaded is recognised by its bytes; weights, text and tokenizers are not."""

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from prosocial.export.hub.pickles import is_pickle
from prosocial.export.hub.screening import screen


class Evil:
    """Its pickle opens a file when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, ("/nonexistent/never", "r")


class State:
    """Its pickle names a class and sets a state."""

    def __init__(self) -> None:
        self.a = 1


def zipped(name: str = "archive/data.pkl") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, pickle.dumps(Evil()))
    return buffer.getvalue()


def saved_array(*, several: bool) -> bytes:
    buffer, array = io.BytesIO(), np.array([Evil()], dtype=object)
    np.savez(buffer, a=array) if several else np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("data.pkl")
        info.size = len(pickle.dumps(Evil()))
        archive.addfile(info, io.BytesIO(pickle.dumps(Evil())))
    return buffer.getvalue()


HARMFUL = {f"protocol {protocol}": pickle.dumps(Evil(), protocol) for protocol in range(6)}
HARMFUL |= {f"an object of protocol {protocol}": pickle.dumps(State(), protocol) for protocol in range(6)}
HARMFUL |= {
    f"harmless numbers of protocol {protocol}": pickle.dumps([1, {"a": 2.5}], protocol) for protocol in range(6)
}
HARMFUL |= {
    "an ordered dict": pickle.dumps(OrderedDict(a=1), 0),
    "one without its end": pickle.dumps(Evil(), 0)[:-1] + b"\xff\xff",
    "one of protocol 2 without its end": pickle.dumps(Evil(), 2)[:-1],
    "an import alone": b"cantigravity\nx\n\xff",
    "a call in text without an end": b"cos\nsystem\n(S'id'\ntR and more text\n",
    "text that ends after an import": b"cos\nsystem\n.",
    "INST": b"(S'id'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'id'\no.",
    "one that pops first": b"N0cos\nsystem\n(S'id'\ntR.",
    "torch's old format": pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps(Evil(), 2),
    "a ZIP": zipped(),
    "a ZIP after leading bytes": b"\0" * 16 + zipped(),
    "a ZIP before trailing bytes": zipped() + b"\0" * 100,
    "a ZIP inside of a ZIP": zipped("inner.zip"),
    "npz": saved_array(several=True),
    "npy": saved_array(several=False),
    "gzip, as joblib": gzip.compress(pickle.dumps(Evil())),
    "zlib, as joblib": zlib.compress(pickle.dumps(Evil())),
    "bzip2, as joblib": bz2.compress(pickle.dumps(Evil())),
    "xz, as joblib": lzma.compress(pickle.dumps(Evil())),
    "lzma, as joblib": lzma.compress(pickle.dumps(Evil()), format=lzma.FORMAT_ALONE),
    "tar": tarred(),
    "HDF5": b"\x89HDF\r\n\x1a\n" + b"\0" * 99,
    "HDF5 after a user block": b"\0" * 512 + b"\x89HDF\r\n\x1a\n" + b"\0" * 99,
    "Zstandard": b"\x28\xb5\x2f\xfd" + b"\0" * 9,
    "7z": b"7z\xbc\xaf\x27\x1c" + b"\0" * 9,
}
GENERATOR = np.random.default_rng(0)
HARMLESS = {
    "nothing": b"",
    "a full stop": b".",
    "prose": b"(c) 2024 The authors.\nAll rights reserved.\n",
    "a licence": b"Copyright 2024\n\nRedistribution is permitted.\n",
    "a word list that begins like an import": b"cat\ndog\nRabbit\nbird\n.\n",
    "a vocabulary that begins like an import of ast": b"cast\nthe\nof\nand\n[UNK]\n##ing\n",
    "a vocabulary with letters beyond ASCII": "cos\ncosine\nstra\u00dfe\n\u4f60\n".encode(),
    "a vocabulary that begins like an import of copy": b"ccopy\nx\ny\n",
    "another word list": b"import\nonce\ntwice\nRR.\n",
    "notes": b"Notice\nI am here.\nR.\n",
    "a version line": b"Version 2\n.\nmore text\n",
    "JSON": b'{"a": [1, 2]}',
    "JSON of a list": b"[1, 2]",
    "merges": b"#version: 0.2\na b\n",
    "tiktoken": b"IQ== 0\nIg== 1\n",
    "sentencepiece": b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02",
    "an ONNX graph": b"\x08\x0a\x12\x07pytorch\x1a\x052.0.0",
    "numbers that begin like a pickle": b"\x80\x04\xff\xff\x00\x12" * 40,
    "numbers that begin like zlib": b"\x78\x9c" + bytes(range(256)) * 4,
}
HARMLESS |= {f"weights {seed}": GENERATOR.normal(size=4096).astype(np.float16).tobytes() for seed in range(20)}


@pytest.mark.parametrize("name", HARMFUL)
def test_what_can_run_code_is_recognised(name: str, tmp_path: Path) -> None:
    for suffix in (".txt", ".data", ".model", ".json"):
        path = tmp_path / f"file{suffix}"
        path.write_bytes(HARMFUL[name])
        assert is_pickle(path)
        assert "can run code when it is loaded" in screen(tmp_path, [path.name])[0]


@pytest.mark.parametrize("name", HARMLESS)
def test_what_cannot_is_not(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(HARMLESS[name])
    assert not is_pickle(path)


TOKEN = "hf_" + "a" * 34
HIDDEN = {
    "plain.txt": TOKEN.encode(),
    "LICENSE": b"sk-ant-" + b"x" * 30,
    "escaped.json": f'{{"t": "{TOKEN}"}}'.replace("hf_", "hf\\u005f").encode(),
    "all_escaped.json": ('{"t": "' + "".join(f"\\u{ord(letter):04x}" for letter in TOKEN) + '"}').encode(),
    "percent.txt": TOKEN.replace("_", "%5F").encode(),
    "entities.md": TOKEN.replace("_", "&#95;").encode(),
    "utf16.txt": TOKEN.encode("utf-16"),
    "utf16be.txt": TOKEN.encode("utf-16-be"),
    "utf32.txt": TOKEN.encode("utf-32"),
    "graph.onnx": b"\x08\x0adoc \xff " + TOKEN.encode(),
    "weights.data": b"\xff" * (1 << 24) + b" " + TOKEN.encode() + b"\xff" * 99,
    "across.data": b"\xff" * ((1 << 24) - 7) + TOKEN.encode() + b"\xff" * 99,
    "spiece.model": b"\n\x0e\n\x05<unk>" + b"\x15" + TOKEN.encode(),
    "config.json": b'{"url": "https://ada:word@host/x"}',
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_token_is_recognised_wherever_it_stands(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(HIDDEN[name])
    (line,) = screen(tmp_path, [name])
    assert line.startswith(f"{name} holds a") and TOKEN not in line
