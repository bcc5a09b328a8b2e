"""Access to the files of a checkpoint, and its implementation for a local folder (for the Hub see `hub`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from prosocial.core.files import read_json

from .header import Header, read_header
from .sides import list_files


class Place(Protocol):
    """Access to the files of a checkpoint by their relative paths."""

    @property
    def folder(self) -> Path:
        """The local folder, or `ORG/NAME` of a Hub repository, as it is named in messages."""
        ...

    def files(self) -> Mapping[str, int]:
        """Return the size in bytes of every file that is not hidden, sorted by path."""
        ...

    def read_json(self, path: str) -> dict[str, Any]:
        """Return the JSON object in a file."""
        ...

    def read_header(self, path: str) -> Header:
        """Return the validated header of a safetensors file."""
        ...


class LocalPlace:
    """A local checkpoint folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self) -> Mapping[str, int]:
        """Return the size in bytes of every file that is not hidden; each call lists the folder again."""
        return {path: (self.folder / path).stat().st_size for path in list_files(self.folder)}

    def read_json(self, path: str) -> dict[str, Any]:
        """Return the JSON object in a file."""
        return read_json(self.folder / path, finite=False)

    def read_header(self, path: str) -> Header:
        """Return the validated header of a safetensors file."""
        return read_header(self.folder / path)
