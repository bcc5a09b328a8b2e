"""A file as it lies here and as the Hub lists it, and whether the two are the same bytes."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from prosocial.core.files import sha256_file


@dataclass(frozen=True)
class RemoteFile:
    """A file as the Hub lists it; `sha256` is known of large files only, `oid` is git's id."""

    size_bytes: int
    oid: str
    sha256: str | None


@dataclass(frozen=True)
class PlannedFile:
    """A file to publish: where its bytes are, and what the Hub will know them by."""

    path: str
    content: Path | bytes
    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, path: str, content: Path | bytes) -> "PlannedFile":
        """Read a file, or take bytes."""
        if isinstance(content, bytes):
            return cls(path, content, len(content), hashlib.sha256(content).hexdigest())
        return cls(path, content, content.stat().st_size, sha256_file(content))

    @cached_property
    def git_id(self) -> str:
        """What git calls the bytes: the Hub knows small files by it."""
        content = self.content if isinstance(self.content, bytes) else self.content.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()

    def is_at(self, remote: RemoteFile | None) -> bool:
        """Whether the Hub holds just these bytes."""
        if remote is None or remote.size_bytes != self.size_bytes:
            return False
        return remote.sha256 == self.sha256 if remote.sha256 else remote.oid == self.git_id
