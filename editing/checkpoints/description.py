"""What a checkpoint is, as plain data for people and machines."""

from typing import Any

from .folder import Checkpoint
from .quantised import quantisation_evidence


def describe_checkpoint(checkpoint: Checkpoint, *, fingerprint: bool = True) -> dict[str, Any]:
    """Return what headers, config and file names say; with `fingerprint` every weight byte is read as well."""
    description = {
        "kind": "checkpoint",
        "architectures": checkpoint.config.get("architectures") or [],
        "model_type": checkpoint.config.get("model_type"),
        "n_tensors": len(checkpoint.tensors),
        "n_parameters": checkpoint.n_parameters,
        "size_bytes": checkpoint.size_bytes,
        "n_by_dtype": checkpoint.n_by_dtype,
        "weight_files": list(checkpoint.headers),
        "tied_embeddings": checkpoint.tied.tied,
        "quantised": quantisation_evidence(checkpoint),
        "side_files": checkpoint.side_files,
        "bound_files": checkpoint.bound_files,
    }
    return description | ({"fingerprint": checkpoint.fingerprint()} if fingerprint else {})
