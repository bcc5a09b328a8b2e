"""A repository of the Hub whose weights stay there: config and index are fetched, the rest is read by range."""

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

BLOCK_BYTES = 1 << 16  # most headers fit; one more request fetches the rest of a longer one
PARTIAL_CONTENT = 206


class HubPlace:
    """The files of one commit of a repository.

    Args:
        name: an id such as `Qwen/Qwen3-0.6B`.
        revision: commit, tag or branch; the head of the default branch if None.

    Raises:
        InputError: the Hub does not serve it.
    """

    def __init__(self, name: str, *, revision: str | None = None) -> None:
        from huggingface_hub import HfApi  # takes a third of a second to import

        with hub_errors(name):
            info = HfApi().model_info(name, revision=revision, files_metadata=True)
        self.folder, self._name, self.commit = Path(name), name, info.sha
        self._sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}

    def files(self) -> Mapping[str, int]:
        """Return the sizes that the Hub lists."""
        paths = sorted(self._sizes)
        return {path: self._sizes[path] for path in paths if not any(part.startswith(".") for part in path.split("/"))}

    def read_json(self, path: str) -> dict[str, Any]:
        """Fetch a small file into the client's cache and return the JSON object in it."""
        from huggingface_hub import hf_hub_download

        with hub_errors(self._name):
            local = hf_hub_download(self._name, path, revision=self.commit)
        return read_json(Path(local))

    def read_header(self, path: str) -> Header:
        """Return the checked header of a safetensors file; its tensors, where they are read at all, are read by range.

        Raises:
            ArtefactError: there is no such file, or its header breaks the format.
        """
        file = self.folder / path
        if path not in self._sizes:
            raise ArtefactError(f"expected a safetensors file at {file} of the Hub: there is none")
        opener = partial(self._open, path)
        with opener(file) as stream:
            return read_header_from(stream, file=file, size_bytes=self._sizes[path], opener=opener)

    def _open(self, path: str, _: Path) -> io.BufferedReader:
        from huggingface_hub import hf_hub_url

        raw = _RangeReader(self._name, hf_hub_url(self._name, path, revision=self.commit), self._sizes[path])
        return io.BufferedReader(raw, BLOCK_BYTES)


class _RangeReader(io.RawIOBase):
    """A file behind an address, of which each read fetches just the bytes that it asks for."""

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
                raise InputError(f"{self._name!r} should be served by range: its server sends whole files; download it")
            content = bytes(reply.read())
        if len(content) != end - start:
            raise InputError(f"{self._name!r} should send {end - start} bytes of {self._url}, sent {len(content)}")
        return content


@contextlib.contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Turn what the Hub's client raises for a repository into one clear line."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # The bases are OSError, and the root of the errors of the HTTP library that this version of the client uses.
    foreseen = cast("tuple[type[Exception], ...]", (*HfHubHTTPError.__bases__, HFValidationError))
    try:
        yield
    except foreseen as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{name!r} is no folder here, and the Hub should serve it: {reason}") from None
