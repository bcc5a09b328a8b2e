"""Where a model comes from: a local folder, or a repository of the Hub (safetensors and text files only)."""

import re
from pathlib import Path

from prosocial.core.errors import InputError

from .folder import Checkpoint
from .hub import HubPlace, hub_errors

PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "LICENSE*")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def resolve_model(
    path_or_id: Path | str, *, revision: str | None = None, cache: Path | str | None = None, local_only: bool = False
) -> Path:
    """Return the local folder of a model: the folder itself, or a snapshot of the Hub repository of that id.

    Args:
        path_or_id: a folder, or an id such as `Qwen/Qwen3-0.6B`.
        revision: commit, tag or branch of the repository.
        cache: cache folder of the Hub client; its own default if None.
        local_only: take a snapshot from the cache, never from the network.

    Raises:
        InputError: neither a folder nor an id that the Hub (or the cache) can serve.
    """
    folder = Path(path_or_id)
    if folder.is_dir():
        return folder
    return _snapshot(_hub_id(path_or_id), revision, cache, local_only)


def open_headers(path_or_id: Path | str) -> Checkpoint:
    """Open a checkpoint; of a repository of the Hub only config, index and headers are fetched.

    Where the Hub cannot be reached, a snapshot in the client's cache will do. Tensors of a repository that are read all
    the same come by range request.

    Raises:
        ArtefactError: no checkpoint, or a broken one (see `Checkpoint.open`).
        InputError: neither a folder nor an id that the Hub or the cache can serve.
    """
    if Path(path_or_id).is_dir():
        return Checkpoint.open(path_or_id)
    name = _hub_id(path_or_id)
    try:
        place = HubPlace(name)
    except InputError as error:
        try:
            return Checkpoint.open(resolve_model(name, local_only=True))
        except InputError:
            raise error from None
    return Checkpoint.open_at(place)


def _hub_id(path_or_id: Path | str) -> str:
    name = str(path_or_id)
    if Path(name).exists():
        raise InputError(f"expected a folder at {name}, found a file: give the folder that holds it")
    if not HUB_ID.fullmatch(name):
        raise InputError(f"expected a model folder or a Hub id at {name!r}: there is no such folder")
    return name


def _snapshot(name: str, revision: str | None, cache: Path | str | None, local_only: bool) -> Path:
    from huggingface_hub import snapshot_download  # takes a third of a second to import

    with hub_errors(name):
        return Path(
            snapshot_download(
                name, revision=revision, cache_dir=cache, local_files_only=local_only, allow_patterns=list(PATTERNS)
            )
        )
