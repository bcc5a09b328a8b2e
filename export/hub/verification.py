"""Whether an artefact is what its records say, and was verified as it lies here.

A bundle is compared with its reference (`prosocial verify`), an edited checkpoint is audited (`prosocial audit`): their
reports name the digests that they are about. An adapter is held against its own record, a reward model must rank
held-out pairs better than chance.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosocial.core.errors import ArtefactError
from prosocial.core.files import read_json, require_keys, sha256_file
from prosocial.core.signing.envelope import BrokenSignature, unverified
from prosocial.core.signing.model_signature import SIGNATURE_FILE, STATEMENTS_FOLDER, FolderDigest, signed_files
from prosocial.editing.checkpoints.fingerprint import fingerprint
from prosocial.editing.checkpoints.header import TensorInfo, read_header
from prosocial.editing.edits.record import RECORD_NAME, read_record
from prosocial.editing.vectors.adapter_config import WEIGHTS_NAME

from ..bundle_files.manifest import MANIFEST_FILE, check_manifest
from .kinds import ADAPTER_RECORD, REWARD_CONFIG, Kind

PASSES = ("pass", "confirmed", "confirmed within rounding")
REPORTS = {  # the report that a kind needs: its name, schema, and the command that writes it
    Kind.BUNDLE: ("parity", "prosocial.parity_report/", "prosocial verify BUNDLE --reference STEERED --json"),
    Kind.CHECKPOINT: ("audit", "prosocial.audit/", "prosocial audit EDITED --base BASE --vector VECTOR --json"),
}
TRAINING_FILE = "training.json"
CHANCE = 0.5


@dataclass(frozen=True)
class Verification:
    """What was verified of an artefact.

    Attributes:
        title: how. verdict: the word of the report. told: the finding, a sentence.
        report: the document that says so, if it is one of its own.
    """

    title: str
    verdict: str
    told: str
    report: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, str]:
        """Return plain JSON, without the report."""
        return {"title": self.title, "verdict": self.verdict, "told": self.told}


def report_of(folder: Path, kind: Kind, given: Path | None = None) -> Path | None:
    """Return where the report lies that a kind needs: in a signed folder, given, or in it; None: it needs none."""
    if kind not in REPORTS:
        return None
    own = folder / STATEMENTS_FOLDER / f"{REPORTS[kind][0]}.json"
    is_stated = (folder / SIGNATURE_FILE).is_file() and own.is_file()
    return own if is_stated else given or own


def check_verification(folder: Path, kind: Kind, *, report: Path | None = None) -> Verification:
    """Check the digests of a folder and that what verified it is about these bytes and passed.

    Args:
        folder: the artefact. kind: what it is. report: of `prosocial verify` or `prosocial audit`; None: the one in
            the folder's `signatures/`.

    Raises:
        ArtefactError: a digest does not match, or the verification is absent, stale or did not pass.
    """
    _check_signed_bytes(folder)
    return _CHECKS[kind](folder, report_of(folder, kind, report))


def _check_signed_bytes(folder: Path) -> None:
    """Refuse a folder that changed since it was signed; who signed is for its readers to judge."""
    if not (folder / SIGNATURE_FILE).is_file():
        return
    try:
        signed = signed_files(unverified(folder / SIGNATURE_FILE))
    except BrokenSignature as broken:
        raise ArtefactError(f"{folder} should carry a sound signature: {broken}; sign it anew with --again") from None
    found = FolderDigest.of(folder).files
    wrong = sorted(name for name in {*signed, *found} if signed.get(name) != found.get(name))
    if wrong:
        raise ArtefactError(f"{folder} should be as it was signed, {wrong[0]} is not: sign it anew with --again")


def _read_report(path: Path | None, kind: Kind) -> dict[str, Any]:
    name, schema, command = REPORTS[kind]
    if path is None or not path.is_file():
        raise ArtefactError(
            f"every {kind} should be verified before it is published, there is no report: {command} > {name}.json, "
            f"then --{name} {name}.json (or sign it with it)"
        )
    report = read_json(path)
    if not str(report.get("schema")).startswith(schema):
        raise ArtefactError(f"{path} should be the {name} report of {command}, found schema {report.get('schema')!r}")
    return report


def _require_subject(path: Path | None, what: str, expected: str, said: object, command: str) -> None:
    if said != expected:
        raise ArtefactError(
            f"{path} is stale: this folder's {what} has digest {expected[:16]}, the report is about {str(said)[:16]}; "
            f"run {command} again"
        )


def _require_pass(path: Path | None, verdict: object) -> str:
    if verdict not in PASSES:
        raise ArtefactError(f"{path} should say that the verification passed, it says {verdict!r}: mend what it names")
    return str(verdict)


def _check_bundle(folder: Path, path: Path | None) -> Verification:
    manifest, report = check_manifest(folder), _read_report(path, Kind.BUNDLE)
    command, subject = REPORTS[Kind.BUNDLE][2], report.get("subject") or {}
    own = sha256_file(folder / MANIFEST_FILE)
    _require_subject(path, "manifest", own, subject.get("manifest_sha256"), command)
    weights = str(manifest.get("checkpoint_fingerprint"))
    if (folder / RECORD_NAME).is_file() and read_record(folder).result.fingerprint != weights:
        raise ArtefactError(f"{folder / RECORD_NAME} should speak of the exported weights {weights[:16]}: export again")
    _require_subject(path, "exported weights", weights, subject.get("reference_fingerprint"), command)
    verdict = _require_pass(path, report.get("verdict"))
    flips = (report.get("safe_set") or {}).get("n_flips")
    told = (
        f"{report.get('n_positions')} decisions on {report.get('n_prompts')} prompts, {flips} safety decisions differ"
    )
    return Verification("parity with the PyTorch reference", verdict, told, report)


def _check_checkpoint(folder: Path, path: Path | None) -> Verification:
    record, report = read_record(folder), _read_report(path, Kind.CHECKPOINT)
    actual, recorded = fingerprint(folder), record.result.fingerprint
    if actual != recorded:
        raise ArtefactError(
            f"{folder / RECORD_NAME} should speak of these weights, fingerprint {actual[:16]}; it speaks of "
            f"{recorded[:16]}: edit again"
        )
    for name, digest in record.result.side_files.items():
        if name == "README.md":
            raise ArtefactError(f"{folder / RECORD_NAME} holds the base's card to be a part of the edit: edit again")
        if not (folder / name).is_file() or sha256_file(folder / name) != digest:
            raise ArtefactError(f"{folder / name} should have the bytes that {RECORD_NAME} speaks of: edit again")
    _require_subject(path, "weights", actual, report.get("fingerprint"), REPORTS[Kind.CHECKPOINT][2])
    verdict = _require_pass(path, report.get("verdict"))
    levels = ", ".join(f"level {level['level']} {level['verdict']}" for level in report.get("levels") or ())
    return Verification("audit of the edit", verdict, levels or "no level ran", report)


def _check_adapter(folder: Path, _: Path | None) -> Verification:
    path, record = folder / ADAPTER_RECORD, read_json(folder / ADAPTER_RECORD, schema="prosocial.edit_adapter/1")
    require_keys(record, ("tensors", "coefficients", "inner_product", "energy"), where=str(path))
    carried, coefficients = record["tensors"], record["coefficients"]
    factors = read_header(folder / WEIGHTS_NAME).tensors
    wrong = sorted(name for name, said in carried.items() if _ranks(name, factors) != [said["rank"]] * 2)
    if wrong or not carried or len(factors) != 2 * len(carried):
        where = f"{wrong[0]} differs" if wrong else f"{len(factors)} factors for {len(carried)} tensors"
        raise ArtefactError(f"{path} should speak of the factors beside it, {where}: write the adapter again")
    if record["inner_product"] > 0 or any(not coefficients.get(name, -1.0) >= 0 for name in carried):
        raise ArtefactError(f"{path} should subtract everywhere, it does not: write the adapter again")
    told = f"{len(carried)} tensors as recorded, {record['energy']:.1%} of the edit's squared norm"
    return Verification("the adapter's own record", "confirmed", told)


def _ranks(name: str, factors: Mapping[str, TensorInfo]) -> list[int]:
    """Return the ranks of a tensor's factors; peft puts `base_model.model.` before the layer's path."""
    layer, found = name.removesuffix(".weight"), []
    for key, factor in factors.items():
        path, _, part = key.removeprefix("base_model.model.").rpartition(".lora_")
        if layer.endswith(path) or path.endswith(layer):
            found.append(factor.shape[0] if part.startswith("A") else factor.shape[-1])
    return found


def _check_reward(folder: Path, _: Path | None) -> Verification:
    config = read_json(folder / REWARD_CONFIG)
    require_keys(config, ("attributes", "base_fingerprint"), where=str(folder / REWARD_CONFIG))
    read_header(folder / WEIGHTS_NAME)
    path = folder / TRAINING_FILE
    if not path.is_file():
        raise ArtefactError(f"{path} should say how held-out pairs are ranked, there is no such file: train it again")
    accuracy = read_json(path).get("pair_accuracy") or {}
    for name in config["attributes"]:
        found = accuracy.get(name) or {"corner": 0.0, "n": 0}
        if not (found["n"] > 0 and found["corner"] > CHANCE):
            raise ArtefactError(
                f"{path} should rank more than {CHANCE:.0%} of the held-out pairs right by {name}, found "
                f"{found['corner']:.1%} of {found['n']}: train it again"
            )
    shares = [f"{name} {accuracy[name]['corner']:.1%} of {accuracy[name]['n']}" for name in config["attributes"]]
    return Verification("held-out pairs ranked right", "pass", ", ".join(shares))


def _unverified(folder: Path, _: Path | None) -> Verification:
    return Verification("none", "not verified", "no record accounts for these weights")


_CHECKS: dict[Kind, Callable[[Path, Path | None], Verification]] = {
    Kind.BUNDLE: _check_bundle,
    Kind.CHECKPOINT: _check_checkpoint,
    Kind.ADAPTER: _check_adapter,
    Kind.REWARD: _check_reward,
    Kind.VECTOR: _unverified,
    Kind.HARMFUL: _unverified,
}
