"""What a folder, a file or a repository of the Hub is, as plain data (torch-free)."""

from pathlib import Path
from typing import Any

from prosocial.editing.checkpoints.description import describe_checkpoint
from prosocial.editing.checkpoints.source import open_headers

from .files import describe_file
from .folders import describe_any_folder


def inspect_artefact(path_or_id: Path | str, *, fingerprint: bool = True) -> dict[str, Any]:
    """Say what something is, by the files it holds and the schemas they carry; `kind` comes first.

    Nothing is verified beyond what reading needs: signatures and manifests have commands of their own. Of a repository
    of the Hub only config and headers are fetched.

    Args:
        path_or_id: any folder or file that this package writes or reads; or a Hub id of a checkpoint.
        fingerprint: read all weights of a checkpoint, vector or adapter to compute their fingerprint.

    Raises:
        ArtefactError: no artefact of this package, or a broken one; says what was looked for.
        InputError: neither a folder or file nor an id that the Hub serves.
    """
    path = Path(path_or_id)
    if path.is_dir():
        return describe_any_folder(path, fingerprint=fingerprint)
    if path.is_file():
        return describe_file(path)
    return describe_checkpoint(open_headers(path_or_id), fingerprint=False)
