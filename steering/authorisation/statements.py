"""Signed statements about safety configs, each valid for the graph of one bundle and a limited time (torch-free).

The content of a statement is used only after its signature has been verified.
"""

import secrets
from collections.abc import Mapping, Sequence
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
GRAPH_FILES = "model.onnx"  # prefix of the graph's file names: the nodes, and their external weights


def graph_digests(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the BLAKE3 digests of a bundle's graph files, by file name, from its manifest.

    Raises:
        ArtefactError: the manifest has no BLAKE3 digests (an older version).
    """
    files = {name: entry for name, entry in manifest["files"].items() if name.startswith(GRAPH_FILES)}
    if not files or not all("blake3" in entry for entry in files.values()):
        raise ArtefactError("the manifest should list BLAKE3 digests of the graph, found none: export the bundle again")
    return {name: entry["blake3"] for name, entry in sorted(files.items())}


def graph_subject(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a bundle's graph as the subject of an in-toto statement."""
    return [{"name": name, "digest": {"blake3": digest}} for name, digest in graph_digests(manifest).items()]


def stated_graph(said: Statement, path: Path) -> dict[str, str]:
    """Return the BLAKE3 digests, by file name, of the graph that a statement is for.

    Raises:
        RefusedConfig: the statement names no graph.
    """
    try:
        return {each["name"]: each["digest"]["blake3"] for each in said["subject"]}
    except (KeyError, TypeError):
        raise RefusedConfig(
            Reason.MALFORMED,
            f"{path.name} should name the graph that it is for, found none: sign it again",
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
