"""What a file is: a document, a signed statement, rows, tensors, a key or a recipe."""

import codecs
import json
from collections import Counter
from pathlib import Path
from typing import Any

from prosocial.core.artefacts import MARKS, Artefact, kind_of_schema
from prosocial.core.errors import ArtefactError
from prosocial.core.files import read_json
from prosocial.core.gguf_files import convert_first, find_gguf
from prosocial.core.signing.envelope import BrokenSignature, unverified
from prosocial.core.signing.keys import TrustedKey
from prosocial.core.yaml_values import read_yaml
from prosocial.editing.checkpoints.header import LFS_START, read_header

from .documents import describe_document
from .rows import describe_rows

HEADER_BYTES = 9  # a safetensors file begins with the length of its header, then the header's "{"
PEM = b"-----BEGIN PUBLIC KEY"
NOT_CHECKED = "not checked"


def describe_file(path: Path) -> dict[str, Any]:
    """Describe a file by what it begins with, or by its ending.

    Raises:
        ArtefactError: no file of this package; says what was looked for.
    """
    with path.open("rb") as stream:
        start = stream.read(len(PEM))
    if path.suffix in (".yaml", ".yml"):
        return _recipe(path)
    if start == PEM:
        key = TrustedKey.read(path)
        return {"kind": "public key", "sha256": key.hint}
    if path.suffix == ".safetensors" or start == LFS_START[: len(PEM)]:
        return _tensors(path)
    if find_gguf(path):
        raise ArtefactError(f"{path} should be a file of prosocial, found {convert_first(path)}")
    if len(start) >= HEADER_BYTES and start[HEADER_BYTES - 1 : HEADER_BYTES] == b"{" and start[:1] != b"{":
        return _tensors(path)
    if start.removeprefix(codecs.BOM_UTF8).lstrip()[:1] != b"{":
        raise _unknown(path, "no JSON, JSONL, YAML, safetensors file or public key")
    return _document(path) if _is_one_object(path) else describe_rows(path)


def _is_one_object(path: Path) -> bool:
    """Whether a file is one JSON object: a JSONL of one row counts as rows by its ending."""
    if path.suffix == ".jsonl":
        return False
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return path.suffix == ".json"
    return True


def _document(path: Path) -> dict[str, Any]:
    document = read_json(path)
    if "dsseEnvelope" in document:
        return _statement(path)
    kind = kind_of_schema(document.get("schema"))
    if kind is None:
        raise _unknown(path, f"JSON with schema {document.get('schema')!r}")
    return describe_document(document, kind)


def _statement(path: Path) -> dict[str, Any]:
    """Describe a signed statement by what it claims."""
    try:
        said = unverified(path)
    except BrokenSignature as broken:
        raise ArtefactError(f"{path} should be a signed statement: {broken}") from None
    kind = kind_of_schema(said.get("predicateType"))
    shown = describe_document(said["predicate"], kind or Artefact.STATEMENT)
    shown.pop("schema")
    try:
        about = [each["name"] for each in said["subject"]]
        signer = read_json(path)["verificationMaterial"]["publicKey"]["hint"]
    except (KeyError, TypeError):
        raise ArtefactError(f"{path} should name what it is about and the key that signed it: it does not") from None
    return {**shown, "states": said.get("predicateType"), "about": about, "key": signer, "signature": NOT_CHECKED}


def _tensors(path: Path) -> dict[str, Any]:
    """Describe a safetensors file by the schema in its metadata."""
    header = read_header(path)
    kind = kind_of_schema(header.metadata.get("schema"))
    facts = {name: value for name, value in header.metadata.items() if name in ("schema", "base", "edited")}
    counts = Counter(tensor.dtype for tensor in header.tensors.values())
    return {
        "kind": str(kind) if kind else "safetensors file",
        **facts,
        "n_tensors": len(header.tensors),
        "n_by_dtype": dict(sorted(counts.items())),
        "size_bytes": path.stat().st_size,
    }


def _recipe(path: Path) -> dict[str, Any]:
    recipe = read_yaml(path.read_text(encoding="utf-8"), where=str(path))
    if not isinstance(recipe, dict) or not {"name", "data"} <= recipe.keys():
        raise _unknown(path, "YAML without the keys of a recipe")
    plain = {key: value for key, value in recipe.items() if not isinstance(value, dict | list)}
    sections = [key for key in recipe if key not in plain]
    pipeline = recipe.get("pipeline", "steering")
    return {"kind": "recipe", "pipeline": pipeline, **plain, "sections": sections, "values": NOT_CHECKED}


def _unknown(path: Path, actual: str) -> ArtefactError:
    known = ", ".join(sorted({mark.family for mark in MARKS if mark.family.startswith("prosocial.")}))
    return ArtefactError(f"{path} should have a known schema ({known}), or be rows, a key or a recipe: found {actual}")
