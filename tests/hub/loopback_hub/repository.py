"""A repository of the loopback Hub: commits, each a whole state, and the names that point to them."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

LFS_SUFFIXES = (".safetensors", ".onnx", ".data", ".bin", ".onnx_adapter")
POINTER_BYTES = 134
MAIN = "main"


class Conflict(Exception):  # noqa: N818 - an answer of the server, not an error of it
    """Somebody committed in between."""


@dataclass(frozen=True)
class Blob:
    """A file's bytes, and whether the Hub keeps them as a large file."""

    content: bytes
    is_large: bool

    @property
    def sha256(self) -> str:
        """What large files are known by."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """The id that git gives the bytes; of a large file that of its pointer."""
        stored = f"oid sha256:{self.sha256} size {len(self.content)}".encode() if self.is_large else self.content
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored, usedforsecurity=False).hexdigest()

    @property
    def etag(self) -> str:
        """What a download is known by."""
        return self.sha256 if self.is_large else self.oid


Files = Mapping[str, Blob]


@dataclass
class Repository:
    """What the Hub holds of a repository.

    Attributes:
        name: `ORG/NAME`. private, gated: its settings.
        commits: files by path, by commit. refs: the commit that each branch and tag names.
    """

    name: str
    private: bool = False
    gated: str | bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.commit({".gitattributes": Blob(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n", False)}, ())

    @property
    def head(self) -> str:
        """The commit that `main` names."""
        return self.refs.get(MAIN, "")

    def resolve(self, revision: str) -> str | None:
        """Return the commit that a branch, tag or commit names, None where there is none."""
        return self.refs.get(revision, revision if revision in self.commits else None)

    def files(self, revision: str = MAIN) -> dict[str, bytes]:
        """Return the bytes by path at a revision, without what the Hub itself adds."""
        commit = self.resolve(revision)
        if commit is None:
            raise KeyError(revision)
        return {path: blob.content for path, blob in self.commits[commit].items() if path != ".gitattributes"}

    def commit(self, added: Files, deleted: Iterable[str], *, parent: str | None = None) -> str:
        """Make a commit on `main` and return its id.

        Raises:
            Conflict: `parent` is given and is not the head.
        """
        if parent is not None and parent != self.head:
            raise Conflict(self.head)
        kept = {path: blob for path, blob in self.commits.get(self.head, {}).items() if path not in set(deleted)}
        state = dict(sorted((kept | dict(added)).items()))
        listing = "".join(f"{path} {blob.oid}\n" for path, blob in state.items())
        said = f"{self.name} {len(self.commits)} {self.head}\n{listing}"
        oid = hashlib.sha1(said.encode(), usedforsecurity=False).hexdigest()
        self.commits[oid] = state
        self.refs[MAIN] = oid
        return oid

    def tree(self, commit: str) -> list[dict[str, Any]]:
        """Return the listing of a commit as the tree API gives it."""
        return [_entry(path, blob, "oid", "oid") | {"type": "file"} for path, blob in self.commits[commit].items()]

    def info(self, commit: str) -> dict[str, Any]:
        """Return what the model API says of a commit."""
        siblings = [_entry(path, blob, "blobId", "sha256") for path, blob in self.commits[commit].items()]
        for sibling in siblings:
            sibling["rfilename"] = sibling.pop("path")
        return {
            "_id": "0",
            "id": self.name,
            "modelId": self.name,
            "sha": commit,
            "private": self.private,
            "gated": self.gated,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": siblings,
        }


def _entry(path: str, blob: Blob, id_key: str, large_key: str) -> dict[str, Any]:
    """Return what both APIs say of a file, under the keys of one of them."""
    size = len(blob.content)
    large = {"lfs": {large_key: blob.sha256, "size": size, "pointerSize": POINTER_BYTES}} if blob.is_large else {}
    return {"path": path, "size": size, id_key: blob.oid} | large


def is_large(path: str, sample: bytes) -> bool:
    """Whether the Hub keeps a file apart: weights by name, and whatever is not text."""
    return path.endswith(LFS_SUFFIXES) or b"\0" in sample
