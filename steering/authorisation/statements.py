"""Signed statements about safety configs, each valid for the files of one bundle and a limited time (torch-free).

The content of a statement is used only after its signature has been verified.
"""

import secrets
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import AwareDatetime, Field, ValidationError, model_validator

from prosocial.core.errors import ArtefactError, InputError
from prosocial.core.files import canonical_json, read_json
from prosocial.core.settings import StrictSettings, first_fault
from prosocial.core.signing.envelope import BrokenSignature, Statement, unseal
from prosocial.core.signing.keys import TrustedKey

from ..configs.authorised import utc_now
from ..configs.refusal import Reason, RefusedConfig

HIGHEST_SIZE_BYTES = 1 << 20
OLD_PREFIX = "model.onnx"  # version 0.1.0 signed for the files whose names start so, and for no others


def bound_digests(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the BLAKE3 digests of all files of a bundle by name, which a statement is valid for.

    They are its graph, weights, decoding config, chat template, tokenizer, presets and records: everything that is
    loaded is listed in the manifest, and everything listed is bound.

    Raises:
        ArtefactError: the manifest has no BLAKE3 digests (an older version).
    """
    files = manifest["files"]
    if not files or not all("blake3" in entry for entry in files.values()):
        raise ArtefactError("the manifest should list BLAKE3 digests of all files, it does not: export it again")
    return {name: entry["blake3"] for name, entry in sorted(files.items())}


def bound_subject(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a bundle's files as the subject of an in-toto statement."""
    return [{"name": name, "digest": {"blake3": digest}} for name, digest in bound_digests(manifest).items()]


def require_bound(
    stated: Mapping[str, str], manifest: Mapping[str, Any], graph_files: Collection[str], *, what: str
) -> bool:
    """Check that a statement is for a bundle; return whether it binds all of its files.

    A statement of version 0.1.0 binds the files `model.onnx*` only. It holds where they are the whole graph.

    Args:
        stated: BLAKE3 digests by file name, as stated.
        manifest: manifest of the opened bundle.
        graph_files: names of the files that its graph consists of; empty to accept no statement of version 0.1.0.
        what: name of the statement, for errors.

    Raises:
        RefusedConfig: it is for another bundle.
    """
    actual = bound_digests(manifest)
    if dict(stated) == actual:
        return True
    old = {name: digest for name, digest in actual.items() if name.startswith(OLD_PREFIX)}
    if dict(stated) == old and graph_files and set(graph_files) <= set(old):
        return False
    wrong = sorted(name for name in {*stated, *actual} if stated.get(name) != actual.get(name))
    raise RefusedConfig(
        Reason.OTHER_BUNDLE,
        f"{what} was signed for another bundle, or the bundle changed since: {', '.join(wrong[:3])} differs; have it "
        "signed again",
    )


def stated_files(said: Statement, path: Path) -> dict[str, str]:
    """Return the BLAKE3 digests, by file name, of the bundle that a statement is for.

    Raises:
        RefusedConfig: the statement names no files.
    """
    try:
        return {each["name"]: each["digest"]["blake3"] for each in said["subject"]}
    except (KeyError, TypeError):
        raise RefusedConfig(
            Reason.MALFORMED,
            f"{path.name} should name the files that it is for, found none: sign it again",
        ) from None


class DatedClaims(StrictSettings):
    """The fields that every statement has.

    Attributes:
        categories: digest of the category registry that the statement is for.
        serial: serial number, 32 hex digits, by which the statement can be revoked.
        not_before: start of validity.
        not_after: end of validity (exclusive).
    """

    categories: str
    serial: str = Field(pattern="^[0-9a-f]{32}$")
    not_before: AwareDatetime
    not_after: AwareDatetime

    @model_validator(mode="after")
    def _lasts(self) -> Self:
        if self.not_after <= self.not_before:
            raise ValueError(f"not_after should be later than not_before {self.not_before}, found {self.not_after}")
        return self


ClaimsType = TypeVar("ClaimsType", bound=DatedClaims)


def dated(what: str, *, valid_days: float, not_before: datetime | None) -> dict[str, Any]:
    """Return the fields `serial`, `not_before` and `not_after` of a new statement.

    Args:
        what: name of the statement in errors.
        valid_days: length of the validity in days.
        not_before: start of the validity; None for now.

    Raises:
        InputError: the statement would never be valid.
    """
    begin = (not_before or utc_now()).replace(microsecond=0)
    try:
        end = begin + timedelta(days=valid_days)
    except (OverflowError, ValueError):  # too far away, or not a number
        end = begin
    if end <= begin:
        raise InputError(f"{what} should be valid for more than 0 days, found {valid_days}")
    return {"serial": secrets.token_hex(16), "not_before": begin, "not_after": end}


def open_signed(path: Path, keys: Sequence[TrustedKey]) -> tuple[Statement, TrustedKey]:
    """Return a signed statement and the key that signed it, after verifying the signature.

    Raises:
        RefusedConfig: the file is too large, cannot be read, has no signature, or none of the keys signed it.
    """
    try:
        if path.stat().st_size > HIGHEST_SIZE_BYTES:
            raise RefusedConfig(Reason.MALFORMED, f"{path.name} should have at most {HIGHEST_SIZE_BYTES} bytes")
        if "dsseEnvelope" not in read_json(path):
            raise RefusedConfig(Reason.UNSIGNED, f"{path.name} has no signature: sign it with prosocial config sign")
        return unseal(path, keys)
    except BrokenSignature as error:
        raise RefusedConfig(Reason.NOT_TRUSTED, str(error)) from None
    except FileNotFoundError:
        raise RefusedConfig(Reason.MALFORMED, f"{path} should be a signed file, found no such file") from None
    except (OSError, ArtefactError, RecursionError):
        raise RefusedConfig(
            Reason.MALFORMED, f"{path.name} should be a readable JSON object: sign the config again"
        ) from None


def claims_of(said: Statement, path: Path, model: type[ClaimsType], *, predicate_type: str) -> ClaimsType:
    """Return the validated content of a verified statement.

    Raises:
        RefusedConfig: the statement has another type, or its fields are invalid.
    """
    if said.get("predicateType") != predicate_type:
        raise RefusedConfig(
            Reason.MALFORMED,
            f"{path.name} should be a statement of type {predicate_type}, found {said.get('predicateType')!r:.80}",
        )
    try:
        return model.model_validate_json(canonical_json(said["predicate"]))
    except ValidationError as error:
        raise RefusedConfig(Reason.MALFORMED, f"{path.name}; {first_fault(error)}") from None
    except ValueError:  # NaN or infinity, which JSON does not have
        raise RefusedConfig(Reason.MALFORMED, f"{path.name} should hold JSON numbers, found NaN or infinity") from None
