"""Description of a model folder: checkpoint, harm vector or adapter (torch-free)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prosocial.core.artefacts import Artefact, marks_of
from prosocial.core.errors import ArtefactError
from prosocial.core.files import sha256_file

from ..checkpoints.description import describe_checkpoint
from ..checkpoints.folder import Checkpoint
from ..vectors.adapter_config import CONFIG_NAME, read_adapter_config
from ..vectors.adapter_config import WEIGHTS_NAME as ADAPTER_WEIGHTS
from ..vectors.description import DESCRIPTION_NAME
from ..vectors.folder import VectorFolder
from .record import RECORD_NAME, read_record


def describe_folder(folder: Path, *, fingerprint: bool = True) -> dict[str, Any]:
    """Describe a checkpoint (with its edit record, if it has one), a harm vector or a LoRA adapter as plain data.

    Args:
        folder: the folder.
        fingerprint: read all weights to compute the fingerprint, and compare it with the edit record.

    Raises:
        ArtefactError: the folder is not a valid checkpoint, harm vector or adapter.
    """
    for mark in marks_of(folder):
        if mark.kind in _DESCRIBERS:
            return _DESCRIBERS[mark.kind](folder, fingerprint)
    raise ArtefactError(
        f"{folder} should be a checkpoint (config.json), a harm vector ({DESCRIPTION_NAME}) or a LoRA adapter "
        f"({CONFIG_NAME}): it holds none of these files"
    )


def _describe_checkpoint(folder: Path, fingerprint: bool) -> dict[str, Any]:
    description = describe_checkpoint(Checkpoint.open(folder), fingerprint=fingerprint)
    return description | ({"edit": _describe_edit(folder, description)} if (folder / RECORD_NAME).is_file() else {})


def _describe_edit(folder: Path, description: dict[str, Any]) -> dict[str, Any]:
    record = read_record(folder)
    recorded = record.result.fingerprint
    return {
        "base_fingerprint": record.base.fingerprint,
        "recorded_fingerprint": recorded,
        "agrees": description["fingerprint"] == recorded if "fingerprint" in description else None,
        "n_changed": sum(tensor.changed for tensor in record.result.tensors.values()),
        "terms": [
            {"blake3": term.blake3, "method": term.method, "coefficients": [item.decimal for item in term.coefficients]}
            for term in record.terms
        ],
    }


def _describe_vector(folder: Path, fingerprint: bool) -> dict[str, Any]:
    vector = VectorFolder.open(folder)
    made = vector.description
    return {
        "kind": "harm vector",
        "storage": made.kind,
        "method": made.method,
        "parameters": made.parameters,
        "n_tensors": len(made.tensors),
        "n_left_out": len(made.left_out),
        "notes": made.notes,
        "size_bytes": vector.size_bytes,
        "norm": made.norm,
        "relatedness": made.relatedness.model_dump(),
        "base_fingerprint": made.base_fingerprint,
        "harmful_kind": made.harmful_kind,
        "harmful_fingerprint": made.harmful_fingerprint,
        "harmful_parents": [parent.model_dump() for parent in made.harmful_parents],
    } | ({"blake3": vector.blake3()} if fingerprint else {})


def _describe_adapter(folder: Path, fingerprint: bool) -> dict[str, Any]:
    config = read_adapter_config(folder)
    weights = folder / ADAPTER_WEIGHTS
    return {
        "kind": "LoRA adapter",
        "rank": config.rank,
        "alpha": config.alpha,
        "rank_stabilised": config.rank_stabilised,
        "dora": config.dora,
    } | ({"sha256": sha256_file(weights)} if fingerprint and weights.is_file() else {})


_DESCRIBERS: dict[Artefact, Callable[[Path, bool], dict[str, Any]]] = {
    Artefact.VECTOR: _describe_vector,
    Artefact.ADAPTER: _describe_adapter,
    Artefact.CHECKPOINT: _describe_checkpoint,
}
