"""Whether a bundle is signed and by whom, from the digests of the files that were opened (torch-free)."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from prosocial.core.errors import ArtefactError
from prosocial.core.signing.envelope import BrokenSignature, unseal
from prosocial.core.signing.keys import TrustedKey
from prosocial.core.signing.model_signature import (
    SIGNATURE_FILE,
    STATEMENTS_FOLDER,
    FolderDigest,
    made_statements,
    signed_files,
)

from .manifest import MANIFEST_FILE
from .verified import VerifiedFiles

RECORD_NAME = "edit_record.json"
STATEMENTS = ("edit", "export", "parity", "audit")
UNSIGNED, NOT_CHECKED, SIGNED = "unsigned", "not checked", "signed"


@dataclass(frozen=True)
class SignatureState:
    """Whether a bundle is signed.

    Attributes:
        state: "unsigned", "not checked" (there is a signature, but no key was given), or "signed".
        signer: the trusted key that signed it; None if it is unsigned or not checked.
    """

    state: str
    signer: TrustedKey | None = None

    def __str__(self) -> str:
        if self.signer is not None:
            return f"signed by {self.signer.name} ({self.signer.hint[:16]})"
        return self.state


def signature_of(files: VerifiedFiles, keys: Sequence[TrustedKey] = ()) -> SignatureState:
    """Return the signature of an opened bundle; with keys, one of them must have signed it and its statements.

    Args:
        files: the opened files.
        keys: trusted public keys; empty to check nothing.

    Raises:
        ArtefactError: with keys, the bundle is not what one of them signed, or a statement is missing, by another key,
            about other files, or of a failure.
    """
    path = files.folder / SIGNATURE_FILE
    if not keys:
        return SignatureState(NOT_CHECKED if path.is_file() else UNSIGNED)
    if not path.is_file():
        raise ArtefactError(
            f"{files.folder} should be signed by a trusted key, found no {SIGNATURE_FILE}: do not use it"
        )
    actual = {name: sha256(content).hexdigest() for name, content in files.contents.items()}
    actual[MANIFEST_FILE] = files.manifest_sha256
    return SignatureState(SIGNED, check_signed(files.folder, actual, keys))


def check_signed(folder: Path, actual: Mapping[str, str], keys: Sequence[TrustedKey]) -> TrustedKey:
    """Compare files with the signature in their folder, check the statements, and return the key that signed them.

    Args:
        folder: folder with `model.sig` and `signatures/`.
        actual: hex SHA-256 by relative path of the files that will be used.
        keys: trusted public keys.

    Raises:
        ArtefactError: as for `signature_of`.
    """
    try:
        signature, signer = unseal(folder / SIGNATURE_FILE, keys)
        signed, made = signed_files(signature), made_statements(signature)
    except BrokenSignature as broken:
        raise ArtefactError(f"{folder} should be signed by a trusted key: {broken}") from None
    wrong = sorted(name for name, digest in actual.items() if signed.get(name) != digest)
    if wrong:
        raise ArtefactError(f"{folder / wrong[0]} should be as it was signed, it is not: do not use this folder")
    required = {*made, *(["export"] if MANIFEST_FILE in signed else []), *(["edit"] if RECORD_NAME in signed else [])}
    check_statements(folder, FolderDigest("", signed).root, keys, required=required)
    return signer


def check_statements(folder: Path, root: str, keys: Sequence[TrustedKey], *, required: Collection[str]) -> None:
    """Refuse a folder whose signed statements are missing, by no trusted key, about other files, or of a failure.

    `prosocial check-signature` also makes each statement again from the folder's contents.

    Args:
        folder: folder with `signatures/`.
        root: digest over the signed files.
        keys: trusted public keys.
        required: names of statements that must be there.

    Raises:
        ArtefactError: a statement does not hold, or is missing.
    """
    paths = {path.name: path for path in sorted((folder / STATEMENTS_FOLDER).glob("*.intoto.json"))}
    missing = sorted(name for name in required if f"{name}.intoto.json" not in paths)
    if missing:
        raise ArtefactError(
            f"{folder / STATEMENTS_FOLDER} should hold the signed statement of the {missing[0]}, found none: it was "
            "removed, or never made; do not use this folder"
        )
    for path in paths.values():
        try:
            statement, _ = unseal(path, keys)
        except BrokenSignature as broken:
            raise ArtefactError(f"{path} should be signed by a trusted key: {broken}") from None
        subjects = [subject.get("digest", {}).get("sha256") for subject in statement.get("subject", ())]
        if root not in subjects[:1]:
            raise ArtefactError(f"{path} should be about these files, it is about others: do not use them")
        name = path.name.removesuffix(".intoto.json")
        if name in STATEMENTS and _kind(statement["predicate"]) != name:
            raise ArtefactError(f"{path} should be the statement of the {name}, it is another: do not use this folder")
        if statement["predicate"].get("result", "PASSED") == "FAILED":
            raise ArtefactError(f"{path} states that the verification failed: do not use these files")


def _kind(predicate: Any) -> str | None:
    """Return which statement it is: the step of a provenance, or the report of a test result; None if neither."""
    try:
        if "buildDefinition" in predicate:
            named = predicate["buildDefinition"]["buildType"].removeprefix("urn:prosocial:").removesuffix(":v1")
        else:
            named = predicate["configuration"][0]["name"].removesuffix(".json")
    except (AttributeError, IndexError, KeyError, TypeError):
        return None
    return str(named)
