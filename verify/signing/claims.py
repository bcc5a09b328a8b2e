"""The statements that can be made about a folder, derived from its contents."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from prosocial.core.contents import read_as
from prosocial.core.errors import ArtefactError
from prosocial.core.files import read_json, sha256_file
from prosocial.core.signing.envelope import Statement
from prosocial.core.signing.model_signature import STATEMENTS_FOLDER, FolderDigest
from prosocial.editing.checkpoints.fingerprint import fingerprint
from prosocial.editing.edits.record import RECORD_NAME, read_record
from prosocial.evaluation.report.report_document import PARITY_SCHEMA
from prosocial.export.bundle_files.manifest import MANIFEST_FILE, covered_files, read_manifest
from prosocial.export.bundle_files.verified import VerifiedFiles

from ..audit.audit_document import SCHEMA as AUDIT_SCHEMA
from .statements import RESULTS, edit_statement, export_statement, result_statement

Claim = Callable[[], Statement]
EDIT, EXPORT, PARITY, AUDIT = CLAIMS = ("edit", "export", "parity", "audit")
REPORTS = {PARITY: PARITY_SCHEMA, AUDIT: AUDIT_SCHEMA}


def claims(folder: Path, digest: FolderDigest, reports: Mapping[str, Path] | None = None) -> dict[str, Claim]:
    """Return the statements that a folder's contents require, in the order of the chain.

    Each value makes its statement when called, and raises ArtefactError if the contents contradict each other.

    Args:
        folder: the folder.
        digest: digest of the folder.
        reports: paths of reports that are not yet in the folder, by claim.
    """
    at = {name: report_path(folder, name) for name in REPORTS} | dict(reports or {})
    made: dict[str, Claim] = {}
    if RECORD_NAME in digest.files:
        made[EDIT] = partial(_edit, folder, digest)
    if MANIFEST_FILE in digest.files:
        made[EXPORT] = partial(_export, folder, digest)
        made[PARITY] = partial(_parity, folder, digest, at[PARITY])
    if RECORD_NAME in digest.files:
        made[AUDIT] = partial(_audit, folder, digest, at[AUDIT])
    return made


def statement_path(folder: Path, claim: str) -> Path:
    """Return the path of the signed statement of a claim."""
    return folder / STATEMENTS_FOLDER / f"{claim}.intoto.json"


def report_path(folder: Path, claim: str) -> Path:
    """Return the path of the report behind a verification result."""
    return folder / STATEMENTS_FOLDER / f"{claim}.json"


def weights_fingerprint(folder: Path, digest: FolderDigest) -> str:
    """Return the fingerprint of the folder's weights; for a bundle, of the checkpoint that its manifest names."""
    if MANIFEST_FILE in digest.files:
        return str(read_manifest(folder).get("checkpoint_fingerprint"))
    return fingerprint(folder)


def _edit(folder: Path, digest: FolderDigest) -> Statement:
    record = read_record(folder)
    actual = weights_fingerprint(folder, digest)
    if actual != record.result.fingerprint:
        raise ArtefactError(
            f"{RECORD_NAME} should be the record of these weights, fingerprint {actual[:16]}; it is of the weights "
            f"{record.result.fingerprint[:16]}"
        )
    return edit_statement(digest, record)


def _export(folder: Path, digest: FolderDigest) -> Statement:
    manifest = read_manifest(folder)
    listed = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    names = sorted({*listed, *covered_files(folder)})
    wrong = [name for name in names if listed.get(name) != digest.files.get(name)]
    if wrong:
        raise ArtefactError(
            f"{MANIFEST_FILE} should list every file as it is: {', '.join(wrong[:3])} differs; export again"
        )
    VerifiedFiles.open(folder).require_bound()  # by BLAKE3, which opening a bundle relies on
    return export_statement(digest, manifest)


def _parity(folder: Path, digest: FolderDigest, path: Path) -> Statement:
    report = read_json(path, schema=REPORTS[PARITY])
    with read_as("a parity report", path):
        subject = report.get("subject") or {}
        _require_same("bundle's manifest", subject.get("manifest_sha256"), digest.files[MANIFEST_FILE])
        _require_same("reference's weights", subject.get("reference_fingerprint"), weights_fingerprint(folder, digest))
        return _result(digest, PARITY, report, path)


def _audit(folder: Path, digest: FolderDigest, path: Path) -> Statement:
    report = read_json(path, schema=REPORTS[AUDIT])
    _require_same("edited weights", report.get("fingerprint"), read_record(folder).result.fingerprint)
    return _result(digest, AUDIT, report, path)


def _result(folder: FolderDigest, claim: str, report: dict[str, Any], path: Path) -> Statement:
    try:
        return result_statement(folder, report, name=f"{claim}.json", digest=sha256_file(path))
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ArtefactError(
            f"{path} should contain a verdict and its tests, each one of {', '.join(RESULTS)}; run {claim} again"
        ) from None


def _require_same(what: str, reported: object, actual: str) -> None:
    if reported != actual:
        raise ArtefactError(
            f"the report should be about this folder: its {what} has digest {actual[:16]}, the report is about "
            f"{str(reported)[:16]}"
        )
