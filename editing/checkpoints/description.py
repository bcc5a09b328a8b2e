"""Summary of a checkpoint as plain data, for printing and for JSON."""

from typing import Any

from .folder import Checkpoint
from .quantised import quantisation_evidence


def describe_checkpoint(checkpoint: Checkpoint, *, fingerprint: bool = True) -> dict[str, Any]:
    """Return a summary of a checkpoint from its headers, config and file names.

    Args:
        checkpoint: the checkpoint.
        fingerprint: compute the fingerprint too, which reads all weights.
    """
    description = {
        "kind": "checkpoint",
        "architectures": checkpoint.config.get("architectures") or [],
        "model_type": checkpoint.config.get("model_type"),
        "n_tensors": len(checkpoint.tensors),
        "n_parameters": checkpoint.n_parameters,
        "size_bytes": checkpoint.size_bytes,
        "n_by_dtype": checkpoint.n_by_dtype,
        "weight_files": list(checkpoint.headers),
        "unusual": list(checkpoint.unusual),
        "tied_embeddings": checkpoint.tied.tied,
        "quantised": quantisation_evidence(checkpoint),
        "side_files": checkpoint.side_files,
        "bound_files": checkpoint.bound_files,
    }
    return description | ({"fingerprint": checkpoint.fingerprint()} if fingerprint else {})
