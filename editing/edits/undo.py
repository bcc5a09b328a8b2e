"""Undoing an edit bit for bit, from the base or from a patch, checked against the edit's record (torch-free)."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from blake3 import blake3

from prosocial.core.errors import ArtefactError, FingerprintError, InputError
from prosocial.core.files import new_folder, sha256_file, write_json

from ..checkpoints.digests import TensorDigest, combine, stream_tensor
from ..checkpoints.folder import Checkpoint
from ..checkpoints.header import Header, TensorInfo
from ..checkpoints.links import require_inside
from .patch import open_patch, patched
from .record import RECORD_NAME, EditRecord, read_record

Pieces = Callable[[TensorInfo], Iterator[bytes | memoryview]]


def undo_edit(
    edited: Path | str, out: Path | str, *, base: Path | str | None = None, patch: Path | str | None = None
) -> str:
    """Restore the checkpoint as it was before an edit, with the same sharding, and check it against the record.

    Adding the vector back would not restore the base exactly, because rounding is not reversible.

    Args:
        edited: folder of the edited checkpoint, with its record.
        out: path of the new folder.
        base: folder of the checkpoint that was edited, with any sharding; give either this or `patch`.
        patch: the patch that was written with the edit; give either this or `base`.

    Returns:
        Fingerprint of the restored checkpoint, equal to that of the base in the record.

    Raises:
        ArtefactError: the record or the patch does not belong to `edited`, or a file is a link out of that folder.
        FingerprintError: the restored weights are not those of the base in the record; nothing is written.
        InputError: `out` exists, or both or neither of `base` and `patch` are given.
    """
    if (base is None) == (patch is None):
        raise InputError(
            "undo should be given exactly one of the base and the patch of the edit: give either --base or --patch"
        )
    edited, out = Path(edited), Path(out)
    checkpoint, record = Checkpoint.open(edited), read_record(edited)
    source = str(base or patch)
    require_inside(edited, [*checkpoint.headers, *record.result.side_files, RECORD_NAME])
    parent = None if base is None else Checkpoint.open(base)
    pieces = _from_patch(Path(patch or ""), record, checkpoint) if parent is None else _from_base(parent, checkpoint)
    with new_folder(out) as aside:
        digests = [
            digest
            for name, header in checkpoint.headers.items()
            for digest in _restore(edited / name, aside / name, header, pieces)
        ]
        actual = combine(digests)
        if actual != record.base.fingerprint:
            raise FingerprintError(
                f"the base of {edited}", record.base.fingerprint, f"the checkpoint restored from {source}", actual
            )
        _copy_sides(edited, aside, record)
    return actual


def _from_patch(file: Path, record: EditRecord, edited: Checkpoint) -> Pieces:
    header = open_patch(file, record, edited)
    return lambda tensor: patched(tensor, header)


def _from_base(base: Checkpoint, edited: Checkpoint) -> Pieces:
    for name, tensor in edited.tensors.items():
        if (base.tensor(name).dtype, base.tensor(name).shape) != (tensor.dtype, tensor.shape):
            raise ArtefactError(
                f"{base.folder} should hold {name} as {tensor.dtype} {tensor.shape}, found "
                f"{base.tensor(name).dtype} {base.tensor(name).shape}; give the base of this edit"
            )
    return lambda tensor: stream_tensor(base.tensor(tensor.name))


def _restore(edited: Path, file: Path, header: Header, pieces: Pieces) -> Iterator[TensorDigest]:
    """Write one weight file, with the header of the edited file and the base's data; yield the digests."""
    with edited.open("rb") as source, file.open("wb") as sink:
        sink.write(source.read(header.data_start))
        for tensor in header.tensors.values():
            digest = blake3()
            for piece in pieces(tensor):
                digest.update(piece)
                sink.write(piece)
            yield TensorDigest.of(tensor, digest.hexdigest())


def _copy_sides(edited: Path, out: Path, record: EditRecord) -> None:
    """Copy the side files, which an edit does not change, and restore the record of an earlier edit."""
    for path, sha256 in record.result.side_files.items():
        source, destination = edited / path, out / path
        inside = ".." not in Path(path).parts and not Path(path).is_absolute()
        if not inside or not source.is_file() or sha256_file(source) != sha256:
            raise ArtefactError(
                f"{source} should be unchanged since the edit, it is missing or changed: restore the file or the folder"
            )
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, destination)
    if record.base.previous is not None:
        write_json(out / RECORD_NAME, record.base.previous)
