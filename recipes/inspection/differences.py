"""The differences between two folders of any kind, by file and by tensor (torch-free)."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from prosocial.core.artefacts import Artefact, marks_by_name
from prosocial.core.errors import ArtefactError
from prosocial.core.files import read_json, sha256_file
from prosocial.editing.checkpoints.folder import INDEX_NAME, Checkpoint
from prosocial.editing.checkpoints.header import TensorInfo, read_header
from prosocial.editing.checkpoints.quantised import quantisation_evidence
from prosocial.editing.checkpoints.sides import list_files
from prosocial.editing.edits.difference import CheckpointDifference, compare_tensors, compare_weights
from prosocial.export.bundle_files.external_data import ExternalTensor, external_tensors

# safetensors' name of each numpy type.
DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
MOST_KEYS = 8
PACKED = (
    "a graph holds its weights packed or transposed, so few of its tensors have the names of the checkpoint; compare "
    "it with a bundle exported from the folder, or run prosocial verify"
)


def compare_folders(first: Path, second: Path) -> CheckpointDifference:
    """Compare two local folders: bundles, steered models, checkpoints, gates, heads, vectors or adapters.

    Tensors of a graph or of a file beside the weights are named `FILE: NAME`; JSON files are compared by key, other
    files by digest. Of two plain checkpoints only the weights are compared (`compare_weights`).

    Raises:
        ArtefactError: a file with tensors is broken, or neither folder holds any tensor.
    """
    if _is_plain(first) and _is_plain(second):
        return compare_weights(Checkpoint.open(first), Checkpoint.open(second))
    ours, theirs = _read(first), _read(second)
    for contents in (ours, theirs):
        if not contents.tensors:
            raise ArtefactError(
                f"{contents.folder} should hold a checkpoint, a bundle or another folder with tensors: its files hold "
                "none"
            )
    one_graph = ours.has_graph != theirs.has_graph
    graph, folder = (ours, theirs) if ours.has_graph else (theirs, ours)
    if one_graph:
        graph = replace(graph, tensors=_named_as_stored(graph.tensors, folder.tensors))
        ours, theirs = (graph, folder) if ours.has_graph else (folder, graph)
    return replace(
        compare_tensors(ours.tensors, theirs.tensors),
        redundant=(PACKED,) if one_graph else (),
        quantised=(*ours.quantised, *theirs.quantised),
        files=tuple(_compare_files(ours, theirs)),
    )


@dataclass(frozen=True)
class _Contents:
    """What a folder holds.

    Attributes:
        folder: the folder.
        tensors: its tensors by name.
        others: relative paths of its files, without those that hold nothing but tensors.
        has_graph: whether some tensors lie in a graph.
        quantised: what shows that its checkpoint is quantised, in words.
    """

    folder: Path
    tensors: dict[str, TensorInfo]
    others: frozenset[str]
    has_graph: bool
    quantised: tuple[str, ...]


def _named_as_stored(graph: Mapping[str, TensorInfo], stored: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """Return a graph's tensors, under the other folder's names where it stores them too (`gate.U`)."""
    names = {name.replace(".safetensors: ", "."): name for name in stored}

    def rename(name: str) -> str:
        parts = name.partition(": ")[2].split(".")
        ends = (".".join(parts[at:]) for at in range(len(parts)))
        return next((names[end] for end in ends if end in names), name)

    return {rename(name): tensor for name, tensor in graph.items()}


def _is_plain(folder: Path) -> bool:
    kinds = [mark.kind for mark in marks_by_name(folder)]
    return kinds == [Artefact.CHECKPOINT] or not kinds


def _read(folder: Path) -> _Contents:
    files = list_files(folder)
    tensors: dict[str, TensorInfo] = {}
    quantised: tuple[str, ...] = ()
    covered: set[str] = set()
    kinds = {mark.kind for mark in marks_by_name(folder)}
    if Artefact.CHECKPOINT in kinds and Artefact.BUNDLE not in kinds:
        checkpoint = Checkpoint.open(folder)
        tensors |= checkpoint.tensors
        covered |= {*checkpoint.headers, INDEX_NAME}
        evidence = quantisation_evidence(checkpoint)
        quantised = (f"{folder.name} is quantised: {evidence}",) if evidence else ()
    for file in files:
        if file.endswith(".safetensors") and file not in covered:
            tensors |= {f"{file}: {name}": tensor for name, tensor in read_header(folder / file).tensors.items()}
            covered.add(file)
    graphs = [file for file in files if file.endswith(".onnx")]
    for file in graphs:
        for tensor in external_tensors((folder / file).read_bytes(), source=file):
            tensors[f"{file}: {tensor.name}"] = _stored(tensor, folder / file)
            covered.add((Path(file).parent / tensor.location).as_posix())
    return _Contents(folder, tensors, frozenset(files) - covered, bool(graphs), quantised)


def _stored(tensor: ExternalTensor, graph: Path) -> TensorInfo:
    file = graph.parent / tensor.location
    end = tensor.offset + tensor.size_bytes
    if Path(tensor.location).name != tensor.location or not file.is_file() or file.stat().st_size < end:
        raise ArtefactError(
            f"{graph} should find {tensor.name} in {tensor.location!r:.80} beside it, up to byte {end}: it does not; "
            "export the bundle again"
        )
    dtype = DTYPES[np.dtype(tensor.dtype).name]
    return TensorInfo(tensor.name, dtype, tensor.shape, file, tensor.offset, end)


def _compare_files(ours: _Contents, theirs: _Contents) -> Iterator[str]:
    for path in sorted(ours.others | theirs.others):
        holders = [contents.folder for contents in (ours, theirs) if path in contents.others]
        if len(holders) == 1:
            yield f"{path}: only in {holders[0]}"
        elif sha256_file(holders[0] / path) != sha256_file(holders[1] / path):
            yield f"{path} differs{_how(*(folder / path for folder in holders))}"


def _how(first: Path, second: Path) -> str:
    if first.suffix == ".onnx":
        return ": the graph, or tensors within it"
    sizes = f": {first.stat().st_size:,} and {second.stat().st_size:,} bytes"
    if first.suffix != ".json":
        return sizes
    try:
        keys = sorted(_differing(read_json(first), read_json(second)))
    except ArtefactError:
        return sizes
    more = f" and {len(keys) - MOST_KEYS} more" if len(keys) > MOST_KEYS else ""
    return f" in: {', '.join(keys[:MOST_KEYS])}{more}" if keys else " in its layout only"


def _differing(first: Mapping[str, Any], second: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """Yield the dotted keys whose values differ."""
    for key in {*first, *second}:
        one, other = first.get(key), second.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differing(one, other, f"{within}{key}.")
        elif (key in first) != (key in second) or json.dumps(one) != json.dumps(other):
            yield f"{within}{key}"
