"""Undo an edit bit for bit, by its record: from the base, or from the edited checkpoint and a patch (torch-free)."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from blake3 import blake3

from prosocial.core.errors import ArtefactError, FingerprintError, InputError
from prosocial.core.files import new_folder, sha256_file, write_json

from ..checkpoints.digests import TensorDigest, combine, stream_tensor
from ..checkpoints.folder import Checkpoint
from ..checkpoints.header import Header, TensorInfo
from .patch import open_patch, patched
from .record import RECORD_NAME, EditRecord, read_record

Pieces = Callable[[TensorInfo], Iterator[bytes | memoryview]]


def undo_edit(
    edited: Path | str, out: Path | str, *, base: Path | str | None = None, patch: Path | str | None = None
) -> str:
    """Write the checkpoint that was edited, in its own layout, and check it against the record.

    Adding the vector again would not do: rounding has taken what it needs.

    Args:
        edited: the edited checkpoint, with its record.
        out: the new folder.
        base: the checkpoint that was edited, sharded in any way; or None.
        patch: the patch written with the edit; or None. Exactly one of the two.

    Returns:
        The fingerprint of the base, which `out` was found to have.

    Raises:
        ArtefactError: the record or the patch does not belong to `edited`.
        FingerprintError: what was restored is not the base of the record; nothing is left.
        InputError: `out` exists, or not exactly one of base and patch was given.
    """
    if (base is None) == (patch is None):
        raise InputError(
            "undo should be given either the base or the patch of the edit: give one of --base and --patch"
        )
    edited, out = Path(edited), Path(out)
    checkpoint, record = Checkpoint.open(edited), read_record(edited)
    source = str(base or patch)
    pieces = _from_patch(Path(patch), record) if patch else _from_base(Checkpoint.open(base or edited), checkpoint)
    with new_folder(out) as aside:
        digests = [
            digest
            for name, header in checkpoint.headers.items()
            for digest in _restore(edited / name, aside / name, header, pieces)
        ]
        found = combine(digests)
        if found != record.base.fingerprint:
            raise FingerprintError(f"the base of {edited}", record.base.fingerprint, f"what {source} gives", found)
        _copy_sides(edited, aside, record)
    return found


def _from_patch(file: Path, record: EditRecord) -> Pieces:
    header = open_patch(file, record)
    return lambda tensor: patched(tensor, header)


def _from_base(base: Checkpoint, edited: Checkpoint) -> Pieces:
    for name, tensor in edited.tensors.items():
        if (base.tensor(name).dtype, base.tensor(name).shape) != (tensor.dtype, tensor.shape):
            raise ArtefactError(f"{base.folder} should hold {name} as {tensor.dtype} {tensor.shape}, found another")
    return lambda tensor: stream_tensor(base.tensor(tensor.name))


def _restore(edited: Path, file: Path, header: Header, pieces: Pieces) -> Iterator[TensorDigest]:
    """Write one weight file: the edited one's header, then the base's bytes."""
    with edited.open("rb") as source, file.open("wb") as sink:
        sink.write(source.read(header.data_start))
        for tensor in header.tensors.values():
            digest = blake3()
            for piece in pieces(tensor):
                digest.update(piece)
                sink.write(piece)
            yield TensorDigest.of(tensor, digest.hexdigest())


def _copy_sides(edited: Path, out: Path, record: EditRecord) -> None:
    """Copy the side files, which an edit leaves as they are, and give back the record of an edit before."""
    for path, sha256 in record.result.side_files.items():
        source, destination = edited / path, out / path
        inside = ".." not in Path(path).parts and not Path(path).is_absolute()
        if not inside or not source.is_file() or sha256_file(source) != sha256:
            raise ArtefactError(f"{source} should be as the edit left it: restore the file or the whole folder")
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, destination)
    if record.base.previous is not None:
        write_json(out / RECORD_NAME, record.base.previous)
