"""Statements about a folder, derived from its contents; a signed statement must equal the one derived again.

Edit and export statements follow SLSA provenance v1, verification results follow in-toto's test-result v0.1, so that
general tools can read them. The first subject is always the folder's own digest.
"""

from collections.abc import Mapping
from typing import Any

from prosocial.core.signing.envelope import Statement, statement
from prosocial.core.signing.model_signature import FolderDigest
from prosocial.editing.edits.record import RECORD_NAME, EditRecord
from prosocial.export.bundle_files.manifest import MANIFEST_FILE

PROVENANCE_TYPE = "https://slsa.dev/provenance/v1"
TEST_RESULT_TYPE = "https://in-toto.io/attestation/test-result/v0.1"
FINGERPRINT = "prosocialFingerprint"  # BLAKE3 over the digests of all tensors, as `prosocial inspect` prints it
RESULTS = {
    "pass": "PASSED",
    "confirmed": "PASSED",
    "confirmed within rounding": "PASSED",
    "ambiguous": "WARNED",
    "cannot say": "WARNED",
    "fail": "FAILED",
    "refuted": "FAILED",
}
TESTS = {"PASSED": "passedTests", "WARNED": "warnedTests", "FAILED": "failedTests"}


def edit_statement(folder: FolderDigest, record: EditRecord) -> Statement:
    """Return the statement that the weights are a base minus harm vectors, from the edit record."""
    terms = [
        {"method": term.method, "coefficients": {one.decimal: one.hex for one in term.coefficients}}
        for term in record.terms
    ]
    vectors = [{"name": f"vector {at}", "digest": {"blake3": term.blake3}} for at, term in enumerate(record.terms)]
    return _provenance(
        folder,
        made={"name": "weights", "digest": {FINGERPRINT: record.result.fingerprint}},
        build_type="urn:prosocial:edit:v1",
        parameters={"terms": terms, "arithmetic": dict(record.arithmetic)},
        sources=[{"name": "base", "digest": {FINGERPRINT: record.base.fingerprint}}, *vectors],
        tool=f"{record.tool.name}:{record.tool.version}",
        record=RECORD_NAME,
    )


def export_statement(folder: FolderDigest, manifest: Mapping[str, Any]) -> Statement:
    """Return the statement that a bundle was exported from a checkpoint, from its manifest."""
    facts = {key: manifest.get(key) for key in ("kind", "profile", "precision", "opset")}
    return _provenance(
        folder,
        made={"name": MANIFEST_FILE, "digest": {"sha256": folder.files[MANIFEST_FILE]}},
        build_type="urn:prosocial:export:v1",
        parameters=facts,
        sources=[{"name": "weights", "digest": {FINGERPRINT: str(manifest.get("checkpoint_fingerprint"))}}],
        tool="prosocial",
        record=MANIFEST_FILE,
    )


def result_statement(folder: FolderDigest, report: Mapping[str, Any], *, name: str, digest: str) -> Statement:
    """Return the statement of a verification result, from the JSON of a parity report or an audit.

    Args:
        folder: digest of the folder.
        report: JSON of the report about it.
        name: file name of the report.
        digest: SHA-256 of the report's file.
    """
    tests: dict[str, list[str]] = {name: [] for name in TESTS.values()}
    for test, verdict in _tests(report):
        tests[TESTS[RESULTS[verdict]]].append(test)
    return statement(
        TEST_RESULT_TYPE,
        [folder.subject],
        {
            "result": RESULTS[report["verdict"]],
            "configuration": [{"name": name, "digest": {"sha256": digest}}],
            **tests,
        },
    )


def _tests(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return name and verdict of each gate of a parity report, or of each level of an audit."""
    if "gates" in report:
        return [(gate["name"], gate["verdict"]) for gate in report["gates"]]
    return [(f"level {level['level']}: {level['title']}", level["verdict"]) for level in report["levels"]]


def _provenance(
    folder: FolderDigest,
    *,
    made: dict[str, Any],
    build_type: str,
    parameters: dict[str, Any],
    sources: list[dict[str, Any]],
    tool: str,
    record: str,
) -> Statement:
    return statement(
        PROVENANCE_TYPE,
        [folder.subject, made],
        {
            "buildDefinition": {
                "buildType": build_type,
                "externalParameters": parameters,
                "internalParameters": {},
                "resolvedDependencies": sources,
            },
            "runDetails": {
                "builder": {"id": f"urn:{tool}"},
                "metadata": {},
                "byproducts": [{"name": record, "digest": {"sha256": folder.files[record]}}],
            },
        },
    )
