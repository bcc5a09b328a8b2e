"""What can be stated of a folder, each made again from its contents and checked against them."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from prosocial.core.errors import ArtefactError
from prosocial.core.files import read_json, sha256_file
from prosocial.core.signing.envelope import Statement
from prosocial.core.signing.model_signature import STATEMENTS_FOLDER, FolderDigest
from prosocial.editing.checkpoints.fingerprint import fingerprint
from prosocial.editing.edits.record import RECORD_NAME, read_record
from prosocial.evaluation.report.report_document import PARITY_SCHEMA
from prosocial.export.bundle_files.manifest import MANIFEST_FILE, covered_files, read_manifest

from ..audit.audit_document import SCHEMA as AUDIT_SCHEMA
from .statements import RESULTS, edit_statement, export_statement, result_statement

Claim = Callable[[], Statement]
EDIT, EXPORT, PARITY, AUDIT = CLAIMS = ("edit", "export", "parity", "audit")
REPORTS = {PARITY: PARITY_SCHEMA, AUDIT: AUDIT_SCHEMA}


def claims(folder: Path, found: FolderDigest, reports: Mapping[str, Path] | None = None) -> dict[str, Claim]:
    """Return what should be stated of a folder by what lies in it, in the order of the chain.

    Each makes its statement when it is called, and raises ArtefactError where the contents contradict one another.

    Args:
        folder: it. found: its digest.
        reports: where a report lies that is not yet in the folder, by claim.
    """
    at = {name: report_path(folder, name) for name in REPORTS} | dict(reports or {})
    made: dict[str, Claim] = {}
    if RECORD_NAME in found.files:
        made[EDIT] = partial(_edit, folder, found)
    if MANIFEST_FILE in found.files:
        made[EXPORT] = partial(_export, folder, found)
        made[PARITY] = partial(_parity, folder, found, at[PARITY])
    if RECORD_NAME in found.files:
        made[AUDIT] = partial(_audit, folder, found, at[AUDIT])
    return made


def statement_path(folder: Path, claim: str) -> Path:
    """Return where the signed statement of a claim lies."""
    return folder / STATEMENTS_FOLDER / f"{claim}.intoto.json"


def report_path(folder: Path, claim: str) -> Path:
    """Return where the report lies that a verification result states."""
    return folder / STATEMENTS_FOLDER / f"{claim}.json"


def weights_fingerprint(folder: Path, found: FolderDigest) -> str:
    """Return the fingerprint of the weights: of those that lie here, or that a bundle says it was exported from."""
    if MANIFEST_FILE in found.files:
        return str(read_manifest(folder).get("checkpoint_fingerprint"))
    return fingerprint(folder)


def _edit(folder: Path, found: FolderDigest) -> Statement:
    record = read_record(folder)
    actual = weights_fingerprint(folder, found)
    if actual != record.result.fingerprint:
        raise ArtefactError(
            f"{RECORD_NAME} should speak of these weights, fingerprint {actual[:16]}; it speaks of "
            f"{record.result.fingerprint[:16]}"
        )
    return edit_statement(found, record)


def _export(folder: Path, found: FolderDigest) -> Statement:
    manifest = read_manifest(folder)
    listed = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    names = sorted({*listed, *covered_files(folder)})
    wrong = [name for name in names if listed.get(name) != found.files.get(name)]
    if wrong:
        raise ArtefactError(f"{MANIFEST_FILE} should list every file as it is: {', '.join(wrong[:3])} differs")
    return export_statement(found, manifest)


def _parity(folder: Path, found: FolderDigest, path: Path) -> Statement:
    report = read_json(path, schema=REPORTS[PARITY])
    subject = report.get("subject") or {}
    _require_same("bundle's manifest", subject.get("manifest_sha256"), found.files[MANIFEST_FILE])
    _require_same("reference's weights", subject.get("reference_fingerprint"), weights_fingerprint(folder, found))
    return _result(found, PARITY, report, path)


def _audit(folder: Path, found: FolderDigest, path: Path) -> Statement:
    report = read_json(path, schema=REPORTS[AUDIT])
    _require_same("edited weights", report.get("fingerprint"), read_record(folder).result.fingerprint)
    return _result(found, AUDIT, report, path)


def _result(found: FolderDigest, claim: str, report: dict[str, Any], path: Path) -> Statement:
    try:
        return result_statement(found, report, name=f"{claim}.json", digest=sha256_file(path))
    except (KeyError, TypeError):
        raise ArtefactError(
            f"{path} should hold a verdict and its tests, each one of {', '.join(RESULTS)}; run {claim} again"
        ) from None


def _require_same(what: str, reported: object, actual: str) -> None:
    if reported != actual:
        raise ArtefactError(
            f"the report should be about this folder: its {what} has digest {actual[:16]}, the report is about "
            f"{str(reported)[:16]}"
        )
