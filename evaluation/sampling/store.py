"""Replies on disk, one file per shard, so that a killed comparison goes on where it stopped."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prosocial.core.errors import InputError
from prosocial.core.files import read_json, read_jsonl, storage_errors, write_json, write_jsonl, written_aside

from .shards import Shard

SCHEMA = "prosocial.sampling/1"
SETTINGS_FILE, REPLIES_FOLDER = "sampling.json", "replies"


class ReplyStore:
    """The replies of one comparison. They are in clear, in a folder that only its owner may read.

    Args:
        folder: of the comparison; made if it is not there.
        settings: what the replies rest on; a folder with other settings is refused.

    Raises:
        InputError: the folder holds replies drawn in another way (names what differs).
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._replies = folder / REPLIES_FOLDER
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._replies.mkdir(mode=0o700, exist_ok=True)
        path = folder / SETTINGS_FILE
        wanted = {"schema": SCHEMA, **settings}
        if path.exists():
            _require_same(folder, read_json(path, schema=SCHEMA), wanted)
        write_json(path, wanted)

    def missing(self, shards: Sequence[Shard]) -> list[Shard]:
        """Return the shards that are not there yet."""
        return [shard for shard in shards if not self._path(shard).is_file()]

    def add(self, shard: Shard, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the rows of a shard: whole, or not at all."""
        with written_aside(self._path(shard)) as aside:
            write_jsonl(aside, rows)

    def rows(self, shards: Sequence[Shard]) -> list[dict[str, Any]]:
        """Return the rows of shards, in their order.

        Raises:
            InputError: a file does not hold the replies to its probes.
        """
        found: list[dict[str, Any]] = []
        for shard in shards:
            rows = read_jsonl(self._path(shard))
            if [(row.get("probe"), row.get("sample")) for row in rows] != [(p.id, sample) for p, sample in shard.asked]:
                raise InputError(
                    f"{self._path(shard)} should hold the replies of its shard: delete it, it is drawn again"
                )
            found += rows
        return found

    def _path(self, shard: Shard) -> Path:
        return self._replies / f"{shard.name}.jsonl"


def _require_same(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    differing = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
    if differing:
        key = differing[0]
        raise InputError(
            f"{folder} should hold replies of the same comparison to go on with: {key} was {found.get(key)!r:.80}, now "
            f"{wanted.get(key)!r:.80}; give another folder, or the same settings"
        )
