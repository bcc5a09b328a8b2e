"""Screening of files before publication: pickles and secrets are refused, other file types are left out."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from prosocial.core.errors import ArtefactError
from prosocial.core.redaction import MARKS, secrets_in
from prosocial.editing.checkpoints.header import read_header

from .pickles import pickle_kind

TEXT_SUFFIXES = (".json", ".jinja", ".md", ".txt", ".sig", ".sigstore", ".tiktoken", "")
BINARY_SUFFIXES = (".safetensors", ".onnx", ".data", ".onnx_adapter", ".model")
NAMES_WITHOUT_SUFFIX = ("LICENSE", "NOTICE")
LOCAL_PATH = re.compile(r"(?:/(?:home|Users|root|tmp|mnt|scratch|workspace)/|\b[A-Za-z]:\\{1,2}Users\\)[^\s\"'<>|]+")
CODE_KEYS = ("auto_map", "auto_mapping", "custom_pipelines", "megatron_core")  # name code that a reader may run
CHUNK_BYTES, OVERLAP_BYTES = 1 << 24, 1 << 9
_MARKS = tuple(mark.encode() for mark in MARKS)


def screen(folder: Path, paths: Iterable[str]) -> list[str]:
    """Return one line per file that must not be published, with the reason.

    Args:
        folder: the folder.
        paths: paths of its files, relative to the folder.
    """
    return [line for path in paths for line in _refusals(folder / path, path)]


def is_publishable(path: str) -> bool:
    """Return whether a file has a type that artefacts have: weights, graphs, tokenizers, configs and text.

    Examples:
        >>> is_publishable("tokenizer.json"), is_publishable("logo.png"), is_publishable("modeling.py")
        (True, False, False)
    """
    name = Path(path)
    if not name.suffix:
        return name.name in NAMES_WITHOUT_SUFFIX
    return name.suffix in TEXT_SUFFIXES or name.suffix in BINARY_SUFFIXES


def code_keys(path: Path) -> list[str]:
    """Return the keys of a JSON file that name code which transformers or peft run if a reader permits it."""
    try:
        value = json.loads(path.read_bytes()) if path.suffix == ".json" else None
    except (ValueError, RecursionError):
        return []
    return [key for key in CODE_KEYS if isinstance(value, dict) and value.get(key)]


def local_paths(text: str) -> list[str]:
    """Return the local paths in a text, such as those in a home folder.

    Examples:
        >>> local_paths('{"_name_or_path": "/home/ada/base", "license": "mit"}')
        ['/home/ada/base']
    """
    return sorted({match[0] for match in LOCAL_PATH.finditer(text)})


def read_text(path: Path) -> str:
    """Return a file as text, with invalid UTF-8 replaced."""
    return path.read_bytes().decode("utf-8", errors="replace")


def _refusals(path: Path, name: str) -> Iterator[str]:
    kind = pickle_kind(path)
    if kind is not None:
        yield f"{name} is {kind}, which can run code when it is loaded: save it as safetensors"
        return
    if path.suffix == ".safetensors":
        try:
            read_header(path)
        except ArtefactError as broken:
            yield f"{name} is not a valid safetensors file: {broken}"
            return
    for secret in _secrets(path):
        yield f"{name} holds {secret}: remove it, and revoke it"


def _secrets(path: Path) -> list[str]:
    """Return the kinds of secrets in a file; a large file is read in parts that overlap."""
    found: dict[str, Any] = {}
    with path.open("rb") as stream:
        rest = b""
        while part := stream.read(CHUNK_BYTES):
            raw = rest + part
            is_text = path.suffix not in (".safetensors", ".data")
            if is_text or any(mark in raw for mark in _MARKS):
                found |= dict.fromkeys(secrets_in(raw.decode("latin-1")))
            rest = part[-OVERLAP_BYTES:]
    return list(found)
