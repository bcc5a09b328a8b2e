"""The fingerprint of a checkpoint folder: what every artefact made for it carries."""

from pathlib import Path

from .folder import Checkpoint


def fingerprint(folder: Path | str) -> str:
    """Return the hex BLAKE3 over sorted lines `name dtype shape blake3(raw bytes)`: sharding and order do not enter.

    Every weight byte is read once, a megabyte at a time.

    Raises:
        ArtefactError: the folder is no checkpoint with safetensors weights.
    """
    return Checkpoint.open(folder).fingerprint()
