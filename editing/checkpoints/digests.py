"""Digests of tensors, and the checkpoint fingerprint that is computed from them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from blake3 import blake3

from prosocial.core.errors import ArtefactError
from prosocial.core.files import CHUNK_BYTES
from prosocial.core.shared_files import read_at

from .header import TensorInfo


@dataclass(frozen=True, order=True)
class TensorDigest:
    """A tensor's name, dtype, shape and the hex BLAKE3 of its raw bytes, which together identify it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    blake3: str

    @classmethod
    def of(cls, tensor: TensorInfo, blake3: str) -> "TensorDigest":
        """Return the digest of a stored tensor whose BLAKE3 is already known."""
        return cls(tensor.name, tensor.dtype, tensor.shape, blake3)

    @property
    def line(self) -> str:
        """The tensor's line in the text that the fingerprint hashes: `name dtype [sizes] blake3`."""
        return f"{self.name} {self.dtype} [{','.join(map(str, self.shape))}] {self.blake3}\n"


def combine(digests: Iterable[TensorDigest]) -> str:
    """Return the hex BLAKE3 over the sorted lines of all tensors, which depends neither on order nor on sharding.

    >>> first, second = TensorDigest("a", "F32", (1,), "00"), TensorDigest("b", "F32", (1,), "01")
    >>> combine([first, second]) == combine([second, first])
    True
    """
    text = "".join(digest.line for digest in sorted(digests))
    return blake3(text.encode("utf-8")).hexdigest()


def stream_tensor(tensor: TensorInfo, *, chunk_bytes: int = CHUNK_BYTES) -> Iterator[memoryview]:
    """Yield a tensor's raw bytes in pieces of `chunk_bytes`; the last piece may be shorter.

    The buffer is re-used: a piece is valid until the next one is read.

    Raises:
        ArtefactError: the file became shorter since its header was read.
    """
    buffer = memoryview(bytearray(min(chunk_bytes, tensor.size_bytes)))
    with tensor.open() as stream:
        stream.seek(tensor.start)
        for at in range(0, tensor.size_bytes, chunk_bytes):
            piece = buffer[: min(chunk_bytes, tensor.size_bytes - at)]
            if stream.readinto(piece) != len(piece):
                raise ArtefactError(f"{tensor.file} should hold all of {tensor.name}: it was truncated while open")
            yield piece


def read_whole(file: int, buffer: memoryview, at: int, tensor: TensorInfo) -> None:
    """Fill a buffer from an offset of an open file; several threads may do so at once.

    Args:
        file: file descriptor.
        buffer: receives the bytes.
        at: offset in the file in bytes.
        tensor: the tensor being read, for the error message.

    Raises:
        ArtefactError: the file ends before the buffer is full.
    """
    done = 0
    while done < len(buffer):
        n_read = read_at(file, buffer[done:], at + done)
        if not n_read:
            raise ArtefactError(f"{tensor.file} should hold all of {tensor.name}: it was truncated while open")
        done += n_read


def digest_tensor(tensor: TensorInfo) -> TensorDigest:
    """Read a stored tensor and return its digest."""
    digest = blake3()
    for piece in stream_tensor(tensor):
        digest.update(piece)
    return TensorDigest.of(tensor, digest.hexdigest())
