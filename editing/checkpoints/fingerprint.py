"""The fingerprint of a checkpoint folder, which is stored in every artefact that is made for the checkpoint."""

from pathlib import Path

from .folder import Checkpoint


def fingerprint(folder: Path | str) -> str:
    """Return the fingerprint of a checkpoint: hex BLAKE3 over sorted lines `name dtype shape blake3(raw bytes)`.

    It depends neither on sharding nor on the order of tensors. All weights are read once, a megabyte at a time.

    Raises:
        ArtefactError: the folder is not a checkpoint with safetensors weights.
    """
    return Checkpoint.open(folder).fingerprint()
