"""Opening a model by path or Hub id: a local folder, or a Hub repository (safetensors and text files only)."""

import re
from pathlib import Path

from prosocial.core.errors import InputError
from prosocial.core.gguf_files import convert_first, find_gguf

from .folder import Checkpoint
from .hub import HubPlace, hub_errors

PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "LICENSE*")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def resolve_model(
    path_or_id: Path | str, *, revision: str | None = None, cache: Path | str | None = None, local_only: bool = False
) -> Path:
    """Return the local folder of a model; a Hub repository is downloaded if it is not in the cache.

    Args:
        path_or_id: a local folder, or a Hub id such as `Qwen/Qwen3-0.6B`.
        revision: commit, tag or branch of the Hub repository.
        cache: cache folder of the Hub client; None for its default.
        local_only: use the cache only and never the network.

    Raises:
        InputError: it is neither a local folder nor an id that the Hub (or the cache) serves.
    """
    folder = Path(path_or_id)
    if folder.is_dir():
        return folder
    return _snapshot(_hub_id(path_or_id), revision, cache, local_only)


def open_headers(path_or_id: Path | str) -> Checkpoint:
    """Open a checkpoint in a local folder or on the Hub; of a Hub repository only config, index and headers are read.

    If the Hub cannot be reached, a snapshot in the client's cache is opened instead. If tensors of a Hub repository are
    read later, each is read by range requests.

    Args:
        path_or_id: a local folder, or a Hub id such as `Qwen/Qwen3-0.6B`.

    Raises:
        ArtefactError: it is not a valid checkpoint (see `Checkpoint.open`).
        InputError: it is neither a local folder nor an id that the Hub or the cache serves.
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
        gguf = find_gguf(Path(name))
        found = convert_first(gguf) if gguf else "a file: give the folder that holds it"
        raise InputError(f"expected a folder at {name}, found {found}")
    if not HUB_ID.fullmatch(name):
        raise InputError(f"expected a model folder or a Hub id, found {name!r}: there is no such folder")
    return name


def _snapshot(name: str, revision: str | None, cache: Path | str | None, local_only: bool) -> Path:
    from huggingface_hub import snapshot_download  # imported here because it takes a third of a second

    with hub_errors(name):
        return Path(
            snapshot_download(
                name, revision=revision, cache_dir=cache, local_files_only=local_only, allow_patterns=list(PATTERNS)
            )
        )
