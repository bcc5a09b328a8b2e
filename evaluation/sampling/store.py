"""Replies on disk, one file per shard, so that an interrupted comparison can resume."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prosocial.core.errors import InputError
from prosocial.core.files import delete_asides, read_json, read_jsonl, storage_errors, write_json, write_jsonl
from prosocial.core.locking import locked

from .shards import Shard

SCHEMA = "prosocial.sampling/1"
SETTINGS_FILE, REPLIES_FOLDER, LOCK_FILE = "sampling.json", "replies", ".sampling.lock"


@contextlib.contextmanager
def reply_folder(out: Path | None) -> Iterator[Path]:
    """Yield the folder of a comparison, created if missing and locked; a temporary one for None.

    Raises:
        InputError: another process uses the folder.
        StorageError: it cannot be written.
    """
    if out is None:
        with tempfile.TemporaryDirectory() as place:
            yield Path(place)
        return
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    refusal = f"{out} should be used by one process at a time: another process is using it; wait until it ends"
    with locked(out / LOCK_FILE, refusal=refusal):
        yield out


class ReplyStore:
    """The replies of one comparison, not redacted, in a folder that only its owner can read.

    Args:
        folder: folder of the comparison, which no other process uses (see `reply_folder`).
        settings: what determines the replies; a folder with other settings is rejected.

    Raises:
        InputError: the folder has replies with other settings; the message names the first difference.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._replies = folder / REPLIES_FOLDER
        with storage_errors(folder):
            self._replies.mkdir(mode=0o700, exist_ok=True)
            delete_asides(folder)
            delete_asides(self._replies)
        path = folder / SETTINGS_FILE
        wanted = {"schema": SCHEMA, **settings}
        if path.exists():
            _require_same(folder, read_json(path, schema=SCHEMA), wanted)
        write_json(path, wanted)

    def missing(self, shards: Sequence[Shard]) -> list[Shard]:
        """Return the shards that are not stored yet."""
        return [shard for shard in shards if not self._path(shard).is_file()]

    def add(self, shard: Shard, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the rows of a shard, atomically."""
        write_jsonl(self._path(shard), rows)

    def rows(self, shards: Sequence[Shard]) -> list[dict[str, Any]]:
        """Return the rows of shards, in order.

        Raises:
            InputError: a file does not contain the replies to its shard's probes.
        """
        stored: list[dict[str, Any]] = []
        for shard in shards:
            rows, requests = read_jsonl(self._path(shard)), [(probe.id, sample) for probe, sample in shard.requests]
            if [(row.get("probe"), row.get("sample")) for row in rows] != requests:
                raise InputError(
                    f"{self._path(shard)} should contain the replies of its shard: delete it to sample them again"
                )
            stored += rows
        return stored

    def _path(self, shard: Shard) -> Path:
        return self._replies / f"{shard.name}.jsonl"


def _require_same(folder: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    differing = sorted(key for key in stored.keys() | wanted.keys() if stored.get(key) != wanted.get(key))
    if differing:
        key = differing[0]
        raise InputError(
            f"{folder} should have replies with the same settings to resume, but {key} was {stored.get(key)!r:.80} and "
            f"is now {wanted.get(key)!r:.80}: give another folder, or the same settings"
        )
