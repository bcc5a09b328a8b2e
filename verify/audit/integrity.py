"""Level 1: compares the bytes of a checkpoint with its signature and the digests in its record; needs no base."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from prosocial.core.errors import ArtefactError
from prosocial.core.files import sha256_file
from prosocial.core.signing.envelope import BrokenSignature
from prosocial.core.signing.keys import TrustedKey
from prosocial.core.signing.model_signature import SIGNATURE_FILE, FolderDigest, check_signature
from prosocial.editing.checkpoints.alignment import DERIVED
from prosocial.editing.checkpoints.digests import TensorDigest, combine
from prosocial.editing.checkpoints.folder import Checkpoint
from prosocial.editing.edits.record import EditRecord
from prosocial.export.hub.screening import is_publishable

from .audit_document import LevelAudit
from .stated import unlisted
from .verdicts import AuditVerdict

LEVEL: Final = 1
TITLE = "digests of the edit record"
SIGNATURE_TITLE = "signature over all files"


def check_signer(folder: Path, keys: Sequence[TrustedKey]) -> LevelAudit:
    """Check the signature of a folder; without a signature the verdict is `cannot say`."""
    if not (folder / SIGNATURE_FILE).is_file():
        verdict, reason = AuditVerdict.CANNOT_SAY, f"there is no {SIGNATURE_FILE}: the files are not signed"
    else:
        try:
            digest = FolderDigest.of(folder)
            signer = check_signature(folder, digest, keys)
            verdict, reason = AuditVerdict.CONFIRMED, f"{len(digest.files)} files as signed with {signer.name}"
        except (BrokenSignature, ArtefactError) as broken:
            verdict, reason = AuditVerdict.REFUTED, str(broken)
    return LevelAudit(level=LEVEL, title=SIGNATURE_TITLE, verdict=verdict, reasons=(reason,))


def check_digests(checkpoint: Checkpoint, record: EditRecord, digests: Mapping[str, TensorDigest]) -> LevelAudit:
    """Compare weights and side files with a record.

    Args:
        checkpoint: the model.
        record: the model's own edit record.
        digests: digest of every tensor of the model, by name.

    Returns:
        Confirmed if every byte matches the digests in the record, which does not show that the record is true.
    """
    wrong = [*_tensors(record, digests), *_fingerprint(record), *_side_files(checkpoint.folder, record)]
    if wrong:
        return LevelAudit(level=LEVEL, title=TITLE, verdict=AuditVerdict.REFUTED, reasons=tuple(wrong))
    missing = unlisted(record, checkpoint)
    if missing:
        reasons = tuple(f"{path}: it can change the output, and the record does not list it" for path in missing)
        return LevelAudit(level=LEVEL, title=TITLE, verdict=AuditVerdict.CANNOT_SAY, reasons=reasons)
    n_files = sum((checkpoint.folder / path).is_file() for path in record.result.side_files)
    reason = (
        f"{len(digests)} tensors and {n_files} side files as recorded, fingerprint {record.result.fingerprint[:16]}"
    )
    return LevelAudit(level=LEVEL, title=TITLE, verdict=AuditVerdict.CONFIRMED, reasons=(reason,))


def _tensors(record: EditRecord, digests: Mapping[str, TensorDigest]) -> Iterable[str]:
    recorded = record.result.tensors
    for name in sorted({*recorded, *digests}):
        if name not in digests:
            if not DERIVED.search(name):
                yield f"{name}: in the record, not in the model"
        elif name not in recorded:
            yield f"{name}: in the model, not in the record"
        else:
            actual, expected = digests[name], recorded[name]
            if (actual.dtype, actual.shape) != (expected.dtype, expected.shape):
                yield f"{name}: {actual.dtype} {actual.shape}, but {expected.dtype} {expected.shape} in the record"
            elif actual.blake3 != expected.blake3:
                yield f"{name}: BLAKE3 {actual.blake3[:16]}, but {str(expected.blake3)[:16]} in the record"


def _fingerprint(record: EditRecord) -> Iterable[str]:
    """Yield a reason if the record's fingerprint does not follow from its own digests."""
    said = record.result.tensors.items()
    own = combine(TensorDigest(name, tensor.dtype, tensor.shape, str(tensor.blake3)) for name, tensor in said)
    if own != record.result.fingerprint:
        yield f"the record's digests give the fingerprint {own[:16]}, but it states {record.result.fingerprint[:16]}"


def _side_files(folder: Path, record: EditRecord) -> Iterable[str]:
    for path, sha256 in record.result.side_files.items():
        inside = ".." not in Path(path).parts and not Path(path).is_absolute()
        if not inside:
            yield f"{path}: the record names a file outside the model's folder"
        elif not (folder / path).is_file():
            if is_publishable(path):  # a publication leaves other files out
                yield f"{path}: in the record, not in the model"
        elif sha256_file(folder / path) != sha256:
            yield f"{path}: its SHA-256 differs from the record's"
