"""The files of a bundle, each opened once: what was hashed is what is read, whatever happens to the folder meanwhile.

A file that is replaced or renamed after it was opened does not matter, since its descriptor stays at the same bytes.
Writing into the very file that was opened changes a mapping: `copy` reads the files into private memory first. Windows
does not let others replace a file that is mapped.
"""

import contextlib
import mmap
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from prosocial.core.errors import ArtefactError

from .external_data import ExternalTensor, external_tensors
from .manifest import MANIFEST_FILE, ManifestDifference, covered_files, read_manifest

GRAPH_FILE = "model.onnx"
PRESET_FOLDER = "presets"
ONLY_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)  # a pipe must not block
ALIGNMENT = 16  # bytes; the kernels of ONNX Runtime read in vectors


@dataclass(frozen=True)
class VerifiedFiles:
    """The listed files of a bundle, after each matched the manifest.

    Attributes:
        folder: folder of the bundle, for messages.
        manifest: content of `manifest.json`.
        manifest_sha256: hex SHA-256 of its bytes.
        contents: bytes of each listed file by relative path: mappings of open files, or private copies.
    """

    folder: Path
    manifest: dict[str, Any]
    manifest_sha256: str
    contents: Mapping[str, memoryview]

    @classmethod
    def open(cls, folder: Path, *, copy: bool = False) -> "VerifiedFiles":
        """Open every listed file once and compare it with the manifest.

        Args:
            folder: folder of the bundle.
            copy: read the files into private memory instead of mapping them.

        Raises:
            ArtefactError: the folder or the manifest is missing, or the folder differs from it.
        """
        if not folder.is_dir():
            raise ArtefactError(f"expected a folder at {folder}, found none: check the path")
        text = _content(folder / MANIFEST_FILE, copy=True)
        if text is None:
            raise ArtefactError(f"expected a file at {folder / MANIFEST_FILE}: there is none")
        with private_folder(folder, {MANIFEST_FILE: text}) as place:
            manifest = read_manifest(place)
        listed, actual = manifest["files"], set(covered_files(folder))
        contents = {name: _content(folder / name, copy=copy) for name in sorted(actual & set(listed))}
        opened = {name: content for name, content in contents.items() if content is not None}
        changed = [name for name, content in opened.items() if not _is(content, listed[name])]
        difference = ManifestDifference(
            missing=tuple(sorted(set(listed) - set(opened))),
            unlisted=tuple(sorted(actual - set(listed))),
            changed=tuple(changed),
        )
        if difference:
            raise ArtefactError(f"{folder} should match its manifest; {difference}: download or export it again")
        return cls(folder, manifest, sha256(text).hexdigest(), opened)

    @property
    def graph(self) -> bytes:
        """The bytes of the graph.

        Raises:
            ArtefactError: the manifest lists none.
        """
        if GRAPH_FILE not in self.contents:
            raise ArtefactError(f"{self.folder} should list {GRAPH_FILE} in its manifest, found none: export it again")
        return bytes(self.contents[GRAPH_FILE])

    def external(self, name: str = GRAPH_FILE) -> list[ExternalTensor]:
        """Return a graph's tensors in other files, after checking that the manifest lists each file.

        Args:
            name: file of the graph.

        Raises:
            ArtefactError: a location is not, letter for letter, a file that the manifest lists.
        """
        raw = self.graph if name == GRAPH_FILE else bytes(self.contents[name])
        tensors = external_tensors(raw, source=str(self.folder / name))
        beside = PurePosixPath(name).parent
        for tensor in tensors:
            location = (beside / tensor.location).as_posix() if name != GRAPH_FILE else tensor.location
            if location not in self.contents or location == name:
                raise ArtefactError(
                    f"{self.folder / name} should load in ONNX Runtime with files of its manifest alone: "
                    f"{tensor.location!r}, where {tensor.name!r} should lie, does not exist there; export it again"
                )
        return tensors

    def require_bound(self) -> None:
        """Check that every graph of the bundle, whoever loads it, keeps its tensors in listed files.

        Raises:
            ArtefactError: one of them does not, or is no ONNX model.
        """
        for name in self.contents:
            if name == GRAPH_FILE or PurePosixPath(name).suffix.lower() == ".onnx":
                self.external(name)

    def graph_files(self) -> set[str]:
        """Return the names of the files that the graph consists of."""
        return {GRAPH_FILE} | {tensor.location for tensor in self.external()}

    def weights(self) -> dict[str, NDArray[Any]]:
        """Return the graph's tensors in other files by name, as views of the verified bytes.

        Raises:
            ArtefactError: a file is too short for a tensor.
        """
        return {tensor.name: self._array(tensor) for tensor in self.external()}

    def _array(self, tensor: ExternalTensor) -> NDArray[Any]:
        content = self.contents[tensor.location]
        end = tensor.offset + tensor.size_bytes
        if end > len(content):
            raise ArtefactError(
                f"{self.folder / GRAPH_FILE} should load in ONNX Runtime: {tensor.location} has {len(content)} bytes, "
                f"{tensor.name!r} needs {end}; export the bundle again"
            )
        flat = np.frombuffer(content[tensor.offset : end], np.uint8)
        if flat.size and flat.ctypes.data % ALIGNMENT:
            flat = flat.copy()
        array: NDArray[Any] = flat.view(tensor.dtype).reshape(tensor.shape)
        return array

    @contextlib.contextmanager
    def side_files(self) -> Iterator[Path]:
        """Yield a private folder with copies of the files that are neither graph nor preset, for readers of folders.

        It holds nothing that the manifest does not list. Errors name the bundle's own folder.
        """
        skipped = self.graph_files()
        names = [name for name in self.contents if name not in skipped and not name.startswith(f"{PRESET_FOLDER}/")]
        with private_folder(self.folder, {name: self.contents[name] for name in names}) as place:
            yield place


@contextlib.contextmanager
def private_folder(folder: Path, contents: Mapping[str, memoryview]) -> Iterator[Path]:
    """Yield a temporary folder with some files, which only this user may enter; errors name `folder` instead.

    Args:
        folder: folder that the files are from.
        contents: bytes by relative path.
    """
    with tempfile.TemporaryDirectory(prefix="prosocial-") as place:
        for name, content in contents.items():
            path = Path(place, *PurePosixPath(name).parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        try:
            yield Path(place)
        except ArtefactError as error:
            raise ArtefactError(str(error).replace(place, str(folder))) from None


def _content(path: Path, *, copy: bool) -> memoryview | None:
    """Return the bytes of a regular file, read from one descriptor; None if there is no such file."""
    try:
        descriptor = os.open(path, ONLY_READ)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ArtefactError(f"{path} should be a readable file: {error.strerror}; check its permissions") from None
    with os.fdopen(descriptor, "rb") as stream:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            return None
        if copy or not state.st_size:
            return memoryview(stream.read())
        return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))


def _is(content: memoryview, entry: Mapping[str, Any]) -> bool:
    """Return whether bytes have the size and digest of an entry; older manifests have SHA-256 only."""
    if len(content) != entry["size_bytes"]:
        return False
    if "blake3" in entry:
        return bool(blake3(content, max_threads=blake3.AUTO).hexdigest() == entry["blake3"])
    return bool(sha256(content).hexdigest() == entry["sha256"])


def listed_sha256(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 digests of a manifest's files by name."""
    return {name: entry["sha256"] for name, entry in manifest["files"].items()}
