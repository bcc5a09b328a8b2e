"""Level 1: the bytes of a checkpoint against its signature and the digests of its own record; no base is needed."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from prosocial.core.errors import ArtefactError
from prosocial.core.files import sha256_file
from prosocial.core.signing.envelope import BrokenSignature
from prosocial.core.signing.keys import TrustedKey
from prosocial.core.signing.model_signature import SIGNATURE_FILE, FolderDigest, check_signature
from prosocial.editing.checkpoints.digests import TensorDigest, combine
from prosocial.editing.checkpoints.folder import Checkpoint
from prosocial.editing.edits.record import EditRecord

from .audit_document import LevelAudit
from .verdicts import AuditVerdict

LEVEL: Final = 1
TITLE = "digests of the edit record"
SIGNATURE_TITLE = "signature over all files"


def check_signer(folder: Path, keys: Sequence[TrustedKey]) -> LevelAudit:
    """Hold a folder against its signature; one without a signature is nobody's, and of that nothing can be said."""
    if not (folder / SIGNATURE_FILE).is_file():
        verdict, reason = AuditVerdict.CANNOT_SAY, f"there is no {SIGNATURE_FILE}: nobody vouches for these files"
    else:
        try:
            found = FolderDigest.of(folder)
            signer = check_signature(folder, found, keys)
            verdict, reason = AuditVerdict.CONFIRMED, f"{len(found.files)} files as signed with {signer.name}"
        except (BrokenSignature, ArtefactError) as broken:
            verdict, reason = AuditVerdict.REFUTED, str(broken)
    return LevelAudit(level=LEVEL, title=SIGNATURE_TITLE, verdict=verdict, reasons=(reason,))


def check_digests(checkpoint: Checkpoint, record: EditRecord, digests: Mapping[str, TensorDigest]) -> LevelAudit:
    """Hold weights and side files against a record.

    Args:
        checkpoint: the model.
        record: its own.
        digests: of every tensor of the model, by name.

    Returns:
        Confirmed: every byte is the one that the record speaks of. It says nothing of whether the record is true.
    """
    wrong = [*_tensors(record, digests), *_fingerprint(record), *_side_files(checkpoint.folder, record)]
    if wrong:
        return LevelAudit(level=LEVEL, title=TITLE, verdict=AuditVerdict.REFUTED, reasons=tuple(wrong))
    n_files = len(record.result.side_files)
    reason = (
        f"{len(digests)} tensors and {n_files} side files as recorded, fingerprint {record.result.fingerprint[:16]}"
    )
    return LevelAudit(level=LEVEL, title=TITLE, verdict=AuditVerdict.CONFIRMED, reasons=(reason,))


def _tensors(record: EditRecord, digests: Mapping[str, TensorDigest]) -> Iterable[str]:
    recorded = record.result.tensors
    for name in sorted({*recorded, *digests}):
        if name not in digests:
            yield f"{name}: in the record, not in the model"
        elif name not in recorded:
            yield f"{name}: in the model, not in the record"
        else:
            found, said = digests[name], recorded[name]
            if (found.dtype, found.shape) != (said.dtype, said.shape):
                yield f"{name}: {found.dtype} {found.shape}, the record says {said.dtype} {said.shape}"
            elif found.blake3 != said.blake3:
                yield f"{name}: BLAKE3 {found.blake3[:16]}, the record says {str(said.blake3)[:16]}"


def _fingerprint(record: EditRecord) -> Iterable[str]:
    """Yield what is wrong with the record in itself."""
    said = record.result.tensors.items()
    own = combine(TensorDigest(name, tensor.dtype, tensor.shape, str(tensor.blake3)) for name, tensor in said)
    if own != record.result.fingerprint:
        yield f"the record's digests make the fingerprint {own[:16]}, it says {record.result.fingerprint[:16]}"


def _side_files(folder: Path, record: EditRecord) -> Iterable[str]:
    for path, sha256 in record.result.side_files.items():
        inside = ".." not in Path(path).parts and not Path(path).is_absolute()
        if not inside:
            yield f"{path}: the record names a file outside of the model"
        elif not (folder / path).is_file():
            yield f"{path}: in the record, not in the model"
        elif sha256_file(folder / path) != sha256:
            yield f"{path}: other bytes than the record speaks of"
