"""Where a model comes from: a local folder, or a repository of the Hub (safetensors and text files only)."""

import re
from pathlib import Path

from ..errors import InputError

PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "LICENSE*")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def resolve_model(
    path_or_id: Path | str, *, revision: str | None = None, cache: Path | None = None, local_only: bool = False
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
    name = str(path_or_id)
    if not HUB_ID.fullmatch(name):
        raise InputError(f"expected a model folder or a Hub id at {name!r}: there is no such folder")
    return _snapshot(name, revision, cache, local_only)


def _snapshot(name: str, revision: str | None, cache: Path | None, local_only: bool) -> Path:
    from huggingface_hub import snapshot_download  # takes a third of a second to import
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                name, revision=revision, cache_dir=cache, local_files_only=local_only, allow_patterns=list(PATTERNS)
            )
        )
    except (OSError, HFValidationError, LocalEntryNotFoundError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{name!r} is no folder here, and the Hub should serve it: {reason}") from None
