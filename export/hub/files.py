"""A local file and its listing on the Hub, and their comparison."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from prosocial.core.files import sha256_file


@dataclass(frozen=True)
class RemoteFile:
    """A file as the Hub lists it.

    Attributes:
        size_bytes: size of the file.
        oid: git's blob id (SHA-1, hex).
        sha256: SHA-256 (hex); None for small files, for which the Hub does not report it.
    """

    size_bytes: int
    oid: str
    sha256: str | None


@dataclass(frozen=True)
class PlannedFile:
    """A file to publish.

    Attributes:
        path: path in the repository.
        content: path of the local file, or its bytes.
        size_bytes: size of the file.
        sha256: SHA-256 (hex).
    """

    path: str
    content: Path | bytes
    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, path: str, content: Path | bytes) -> "PlannedFile":
        """Return a file to publish, from a local file or from bytes."""
        if isinstance(content, bytes):
            return cls(path, content, len(content), hashlib.sha256(content).hexdigest())
        return cls(path, content, content.stat().st_size, sha256_file(content))

    @cached_property
    def git_id(self) -> str:
        """Git's blob id of the bytes, by which the Hub identifies small files."""
        content = self.content if isinstance(self.content, bytes) else self.content.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()

    def is_at(self, remote: RemoteFile | None) -> bool:
        """Return whether the Hub's file has the same bytes."""
        if remote is None or remote.size_bytes != self.size_bytes:
            return False
        return remote.sha256 == self.sha256 if remote.sha256 else remote.oid == self.git_id
