"""A checkpoint on the Hub that is read in place: config and index are downloaded, weights read by range requests."""

import contextlib
import io
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prosocial.core.errors import ArtefactError, InputError
from prosocial.core.files import read_json

from .header import Header, read_header_from

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK_BYTES = 1 << 16  # most headers fit into one block; a longer header takes one more request
PARTIAL_CONTENT = 206


class HubPlace:
    """The files of one commit of a Hub repository.

    Args:
        name: id of the repository, such as `Qwen/Qwen3-0.6B`.
        revision: commit, tag or branch; None for the head of the default branch.

    Raises:
        InputError: the Hub does not serve the repository.
    """

    def __init__(self, name: str, *, revision: str | None = None) -> None:
        from huggingface_hub import HfApi  # imported here because it takes a third of a second

        with hub_errors(name):
            info = HfApi().model_info(name, revision=revision, files_metadata=True)
        self.folder, self._name, self.commit = Path(name), name, info.sha
        self._sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}

    def files(self) -> Mapping[str, int]:
        """Return the size in bytes of every file that is not hidden, as the Hub lists them."""
        paths = sorted(self._sizes)
        return {path: self._sizes[path] for path in paths if not any(part.startswith(".") for part in path.split("/"))}

    def read_json(self, path: str) -> dict[str, Any]:
        """Download a small file into the client's cache and return the JSON object in it."""
        from huggingface_hub import hf_hub_download

        with hub_errors(self._name):
            local = hf_hub_download(self._name, path, revision=self.commit)
        return read_json(Path(local), finite=False)

    def read_header(self, path: str) -> Header:
        """Return the validated header of a safetensors file, whose tensors are then read by range requests.

        Raises:
            ArtefactError: there is no such file, or its header violates the format.
        """
        file = self.folder / path
        if path not in self._sizes:
            raise ArtefactError(f"expected a safetensors file {path} in Hub repository {self._name}: there is none")
        opener = partial(self._open, path)
        with opener(file) as stream:
            return read_header_from(stream, file=file, size_bytes=self._sizes[path], opener=opener)

    def _open(self, path: str, _: Path) -> io.BufferedReader:
        from huggingface_hub import hf_hub_url

        raw = _RangeReader(self._name, hf_hub_url(self._name, path, revision=self.commit), self._sizes[path])
        return io.BufferedReader(raw, BLOCK_BYTES)


class _RangeReader(io.RawIOBase):
    """A file at a URL; each read requests only the bytes it needs."""

    def __init__(self, name: str, url: str, size_bytes: int) -> None:
        self._name, self._url, self._size_bytes, self._at = name, url, size_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size_bytes}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        end = min(self._at + len(view), self._size_bytes)
        if end <= self._at:
            return 0
        content = self._fetch(self._at, end)
        view[: len(content)] = content
        self._at = end
        return len(content)

    def _fetch(self, start: int, end: int) -> bytes:
        from huggingface_hub import constants, get_session
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # public, not listed

        headers = {**build_hf_headers(), "Range": f"bytes={start}-{end - 1}"}
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with hub_errors(self._name), get_session().stream("GET", self._url, headers=headers, timeout=timeout) as reply:
            if reply.status_code != PARTIAL_CONTENT:
                reply.raise_for_status()
                raise InputError(
                    f"the server of {self._name!r} should support range requests: it sends whole files; download the "
                    "repository and give its folder"
                )
            content = bytes(reply.read())
        if len(content) != end - start:
            raise InputError(
                f"the server of {self._name!r} should send {end - start} bytes of {self._url}, it sent {len(content)}; "
                "try again"
            )
        return content


@contextlib.contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Turn exceptions of the Hub client for a repository into an InputError with a one-line message."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # The bases are OSError and the base exception of the HTTP library that the installed client uses.
    foreseen = cast("tuple[type[Exception], ...]", (*HfHubHTTPError.__bases__, HFValidationError))
    try:
        yield
    except foreseen as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{name!r} should be a local folder or a repository that the Hub serves: {reason}") from None
