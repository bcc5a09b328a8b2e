"""Where the files of a checkpoint lie: a folder here (a repository of the Hub is in `hub`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from prosocial.core.files import read_json

from .header import Header, read_header
from .sides import list_files


class Place(Protocol):
    """The files of a checkpoint, by their paths relative to it."""

    @property
    def folder(self) -> Path:
        """What messages call it: the folder, or `ORG/NAME`."""
        ...

    def files(self) -> Mapping[str, int]:
        """Return the size in bytes of every file that is not hidden, in the order of paths."""
        ...

    def read_json(self, path: str) -> dict[str, Any]:
        """Return the JSON object in a file."""
        ...

    def read_header(self, path: str) -> Header:
        """Return the checked header of a safetensors file."""
        ...


class LocalPlace:
    """A folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self) -> Mapping[str, int]:
        """Look into the folder, each time anew."""
        return {path: (self.folder / path).stat().st_size for path in list_files(self.folder)}

    def read_json(self, path: str) -> dict[str, Any]:
        """Return the JSON object in a file."""
        return read_json(self.folder / path)

    def read_header(self, path: str) -> Header:
        """Return the checked header of a safetensors file."""
        return read_header(self.folder / path)
