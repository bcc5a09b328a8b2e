"""Verification of an artefact before publication: it must match its records and have passed its check.

A bundle needs the report of its comparison with the reference (`prosocial verify`), an edited checkpoint that of its
audit (`prosocial audit`); the reports name the digests that they are about. An adapter must match its own record, and a
reward model must rank held-out pairs better than chance.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosocial.core.contents import read_as
from prosocial.core.errors import ArtefactError
from prosocial.core.files import read_json, require_keys, sha256_file
from prosocial.core.signing.envelope import BrokenSignature, unverified
from prosocial.core.signing.model_signature import SIGNATURE_FILE, STATEMENTS_FOLDER, FolderDigest, signed_files
from prosocial.editing.checkpoints.fingerprint import fingerprint
from prosocial.editing.checkpoints.header import TensorInfo, read_header
from prosocial.editing.edits.record import RECORD_NAME, read_record
from prosocial.editing.vectors.adapter_config import WEIGHTS_NAME

from ..bundle_files.manifest import MANIFEST_FILE
from ..bundle_files.verified import VerifiedFiles
from .kinds import ADAPTER_RECORD, REWARD_CONFIG, Kind
from .reports import Audit, Parity, parse_report
from .screening import is_publishable

PASSES = ("pass", "confirmed", "confirmed within rounding")
REPORTS = {  # the report that each kind needs: its name, its schema, and the command that writes it
    Kind.BUNDLE: ("parity", "prosocial.parity_report/", "prosocial verify BUNDLE --reference STEERED --json"),
    Kind.CHECKPOINT: ("audit", "prosocial.audit/", "prosocial audit EDITED --base BASE --vector VECTOR --json"),
}
TRAINING_FILE = "training.json"
CHANCE = 0.5


@dataclass(frozen=True)
class Verification:
    """The result of an artefact's verification.

    Attributes:
        title: name of the check.
        verdict: verdict of the report, such as "pass".
        told: the result in one sentence.
        report: content of the report; None if the check has no report.
    """

    title: str
    verdict: str
    told: str
    report: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, str]:
        """Return title, verdict and result as plain JSON."""
        return {"title": self.title, "verdict": self.verdict, "told": self.told}


def report_of(folder: Path, kind: Kind, given: Path | None = None, *, to_be_signed: bool = False) -> Path | None:
    """Return the path of the report that a kind needs, None if it needs none.

    It is the signed report in a signed folder, unless that is `to_be_signed` again, else `given`, else the report in
    the folder's `signatures/`.
    """
    if kind not in REPORTS:
        return None
    own = folder / STATEMENTS_FOLDER / f"{REPORTS[kind][0]}.json"
    is_stated = (folder / SIGNATURE_FILE).is_file() and own.is_file() and not to_be_signed
    return own if is_stated else given or own


def check_verification(
    folder: Path, kind: Kind, *, report: Path | None = None, to_be_signed: bool = False
) -> Verification:
    """Check the digests of a folder, and that its verification is about these bytes and passed.

    Args:
        folder: folder of the artefact.
        kind: kind of the artefact.
        report: path of the report of `prosocial verify` or `prosocial audit`; None for that in `signatures/`.
        to_be_signed: ignore the folder's signature, which will be replaced.

    Raises:
        ArtefactError: a digest does not match, or the verification is missing, stale or did not pass.
    """
    if not to_be_signed:
        _check_signed_bytes(folder)
    path = report_of(folder, kind, report, to_be_signed=to_be_signed)
    with read_as("the verification of this artefact", path or folder):
        return _CHECKS[kind](folder, path)


def _check_signed_bytes(folder: Path) -> None:
    """Refuse a folder that changed since it was signed; the signer is not checked, readers decide whom to trust."""
    if not (folder / SIGNATURE_FILE).is_file():
        return
    try:
        signed = signed_files(unverified(folder / SIGNATURE_FILE))
    except BrokenSignature as broken:
        raise ArtefactError(f"{folder} should have a valid signature: {broken}; sign it again with --again") from None
    actual = FolderDigest.of(folder).files
    wrong = sorted(name for name in {*signed, *actual} if signed.get(name) != actual.get(name))
    if wrong:
        raise ArtefactError(f"{folder} should be as it was signed, {wrong[0]} is not: sign it again with --again")


def _read_report(path: Path | None, kind: Kind) -> tuple[Path, dict[str, Any]]:
    name, schema, command = REPORTS[kind]
    if path is None or not path.is_file():
        raise ArtefactError(
            f"every {kind} should be verified before it is published, found no report: run {command} > {name}.json, "
            f"then give --{name} {name}.json (or sign the folder with it)"
        )
    report = read_json(path)
    if not str(report.get("schema")).startswith(schema):
        raise ArtefactError(f"{path} should be the {name} report of {command}, found schema {report.get('schema')!r}")
    return path, report


def _require_subject(path: Path, what: str, expected: str, reported: str, command: str) -> None:
    if reported != expected:
        raise ArtefactError(
            f"{path} is stale: this folder's {what} has digest {expected[:16]}, the report is about "
            f"{reported[:16]}; run {command} again"
        )


def _require_pass(path: Path, verdict: str) -> str:
    if verdict not in PASSES:
        raise ArtefactError(f"{path} should have a verdict that passes, found {verdict!r}: fix what the report names")
    return verdict


def _check_bundle(folder: Path, path: Path | None) -> Verification:
    files, (path, report) = VerifiedFiles.open(folder), _read_report(path, Kind.BUNDLE)
    files.require_bound()
    manifest, command = files.manifest, REPORTS[Kind.BUNDLE][2]
    parity = parse_report(Parity, report, path=path, command=command)
    own = sha256_file(folder / MANIFEST_FILE)
    _require_subject(path, "manifest", own, parity.subject.manifest_sha256, command)
    weights = str(manifest.get("checkpoint_fingerprint"))
    if (folder / RECORD_NAME).is_file() and read_record(folder).result.fingerprint != weights:
        raise ArtefactError(
            f"{folder / RECORD_NAME} should be about the exported weights {weights[:16]}, it is not: export again"
        )
    _require_subject(path, "exported weights", weights, parity.subject.reference_fingerprint, command)
    verdict = _require_pass(path, parity.verdict)
    parity.require_consistent(path)
    flips = parity.safe_set.n_flips
    result = f"{parity.n_positions} decisions on {parity.n_prompts} prompts, {flips} safety decisions differ"
    return Verification("parity with the PyTorch reference", verdict, result, report)


def _check_checkpoint(folder: Path, path: Path | None) -> Verification:
    record, (path, report) = read_record(folder), _read_report(path, Kind.CHECKPOINT)
    audit = parse_report(Audit, report, path=path, command=REPORTS[Kind.CHECKPOINT][2])
    actual, recorded = fingerprint(folder), record.result.fingerprint
    if actual != recorded:
        raise ArtefactError(
            f"{folder / RECORD_NAME} should be about weights with fingerprint {actual[:16]}, found {recorded[:16]}: "
            "edit again"
        )
    for name, digest in record.result.side_files.items():
        if name == "README.md":
            raise ArtefactError(
                f"{folder / RECORD_NAME} should not list the base's README.md as a part of the edit: edit again"
            )
        if not (folder / name).is_file() and not is_publishable(name):
            continue  # a publication leaves such files out
        if not (folder / name).is_file() or sha256_file(folder / name) != digest:
            raise ArtefactError(f"{folder / name} should have the digest in {RECORD_NAME}, it does not: edit again")
    _require_subject(path, "weights", actual, audit.fingerprint, REPORTS[Kind.CHECKPOINT][2])
    verdict = _require_pass(path, audit.verdict)
    levels = ", ".join(f"level {level.level} {level.verdict}" for level in audit.levels)
    return Verification("audit of the edit", verdict, levels, report)


def _check_adapter(folder: Path, _: Path | None) -> Verification:
    path, record = folder / ADAPTER_RECORD, read_json(folder / ADAPTER_RECORD, schema="prosocial.edit_adapter/1")
    require_keys(record, ("tensors", "coefficients", "inner_product", "energy"), where=str(path))
    carried, coefficients = record["tensors"], record["coefficients"]
    factors = read_header(folder / WEIGHTS_NAME).tensors
    wrong = sorted(name for name, entry in carried.items() if _ranks(name, factors) != [entry["rank"]] * 2)
    if wrong or not carried or len(factors) != 2 * len(carried):
        where = f"{wrong[0]} differs" if wrong else f"{len(factors)} factors for {len(carried)} tensors"
        raise ArtefactError(f"{path} should describe the factors in {WEIGHTS_NAME}, {where}: write the adapter again")
    if record["inner_product"] > 0 or any(not coefficients.get(name, -1.0) >= 0 for name in carried):
        raise ArtefactError(
            f"{path} should subtract the vector from every tensor, it does not: write the adapter again"
        )
    result = f"{len(carried)} tensors as recorded, {record['energy']:.1%} of the edit's squared norm"
    return Verification("the adapter's own record", "confirmed", result)


def _ranks(name: str, factors: Mapping[str, TensorInfo]) -> list[int]:
    """Return the ranks of a tensor's factors; in peft's names, `base_model.model.` precedes the layer's path."""
    layer, ranks = name.removesuffix(".weight"), []
    for key, factor in factors.items():
        path, _, part = key.removeprefix("base_model.model.").rpartition(".lora_")
        if layer.endswith(path) or path.endswith(layer):
            ranks.append(factor.shape[0] if part.startswith("A") else factor.shape[-1])
    return ranks


def _check_reward(folder: Path, _: Path | None) -> Verification:
    config = read_json(folder / REWARD_CONFIG)
    require_keys(config, ("attributes", "base_fingerprint"), where=str(folder / REWARD_CONFIG))
    read_header(folder / WEIGHTS_NAME)
    path = folder / TRAINING_FILE
    if not path.is_file():
        raise ArtefactError(
            f"{path} should report the accuracy on held-out pairs, found no such file: train the reward model again"
        )
    accuracy = read_json(path).get("pair_accuracy") or {}
    for name in config["attributes"]:
        actual = accuracy.get(name) or {"corner": 0.0, "n": 0}
        if not (actual["n"] > 0 and actual["corner"] > CHANCE):
            raise ArtefactError(
                f"{path} should rank more than {CHANCE:.0%} of the held-out pairs right by {name}, found "
                f"{actual['corner']:.1%} of {actual['n']}: train it again"
            )
    shares = [f"{name} {accuracy[name]['corner']:.1%} of {accuracy[name]['n']}" for name in config["attributes"]]
    return Verification("held-out pairs ranked right", "pass", ", ".join(shares))


def _unverified(folder: Path, _: Path | None) -> Verification:
    return Verification("none", "not verified", "no record describes where these weights come from")


_CHECKS: dict[Kind, Callable[[Path, Path | None], Verification]] = {
    Kind.BUNDLE: _check_bundle,
    Kind.CHECKPOINT: _check_checkpoint,
    Kind.ADAPTER: _check_adapter,
    Kind.REWARD: _check_reward,
    Kind.VECTOR: _unverified,
    Kind.HARMFUL: _unverified,
}
