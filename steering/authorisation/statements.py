"""Signed statements about safety configs: each for the graph of one bundle, for a time (torch-free).

Nothing that a statement says is used before its signature holds.
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
GRAPH_FILES = "model.onnx"  # what the names of the graph's files begin with: the nodes, and the weights beside them


def graph_digests(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the BLAKE3 digests of a bundle's graph by file: what opening the bundle compares with the bytes.

    Raises:
        ArtefactError: the manifest is of a version that names none.
    """
    files = {name: entry for name, entry in manifest["files"].items() if name.startswith(GRAPH_FILES)}
    if not files or not all("blake3" in entry for entry in files.values()):
        raise ArtefactError("the manifest should name BLAKE3 digests of the graph, it does not: export it again")
    return {name: entry["blake3"] for name, entry in sorted(files.items())}


def graph_subject(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a bundle's graph as the subject of a statement."""
    return [{"name": name, "digest": {"blake3": digest}} for name, digest in graph_digests(manifest).items()]


def stated_graph(said: Statement, path: Path) -> dict[str, str]:
    """Return the graph that a statement is for.

    Raises:
        RefusedConfig: it names none.
    """
    try:
        return {each["name"]: each["digest"]["blake3"] for each in said["subject"]}
    except (KeyError, TypeError):
        raise RefusedConfig(Reason.MALFORMED, f"{path.name} should name the graph that it is for") from None


class DatedClaims(StrictSettings):
    """What every such statement says.

    Attributes:
        categories: digest of the registry that its names are from. serial: for revocation.
        not_before, not_after: when it holds; the end is excluded.
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
    """Return a new serial and the times of a statement that holds for some days, from now on where no time is given.

    Raises:
        InputError: it would never hold.
    """
    begin = (not_before or utc_now()).replace(microsecond=0)
    try:
        end = begin + timedelta(days=valid_days)
    except (OverflowError, ValueError):  # too far away, or not a number
        end = begin
    if end <= begin:
        raise InputError(f"{what} should hold for a time above 0 days, found {valid_days}")
    return {"serial": secrets.token_hex(16), "not_before": begin, "not_after": end}


def open_signed(path: Path, keys: Sequence[TrustedKey]) -> tuple[Statement, TrustedKey]:
    """Return what one of the keys signed, and that key.

    Raises:
        RefusedConfig: the file is too large, cannot be read, carries no signature, or none of the keys signed it.
    """
    try:
        if path.stat().st_size > HIGHEST_SIZE_BYTES:
            raise RefusedConfig(Reason.MALFORMED, f"{path.name} should have at most {HIGHEST_SIZE_BYTES} bytes")
        if "dsseEnvelope" not in read_json(path):
            raise RefusedConfig(Reason.UNSIGNED, f"{path.name} carries no signature: prosocial config sign makes one")
        return unseal(path, keys)
    except BrokenSignature as error:
        raise RefusedConfig(Reason.NOT_TRUSTED, str(error)) from None
    except FileNotFoundError:
        raise RefusedConfig(Reason.MALFORMED, f"{path} should be a signed file, there is no such file") from None
    except (OSError, ArtefactError, RecursionError):
        raise RefusedConfig(
            Reason.MALFORMED, f"{path.name} should be a JSON object, it cannot be read as one"
        ) from None


def claims_of(said: Statement, path: Path, model: type[ClaimsType], *, predicate_type: str) -> ClaimsType:
    """Return what a statement claims.

    Raises:
        RefusedConfig: it states something else, or in another form.
    """
    if said.get("predicateType") != predicate_type:
        raise RefusedConfig(Reason.MALFORMED, f"{path.name} should state {predicate_type}, it states something else")
    try:
        return model.model_validate_json(canonical_json(said["predicate"]))
    except ValidationError as error:
        raise RefusedConfig(Reason.MALFORMED, f"{path.name}; {first_fault(error)}") from None
    except ValueError:  # a number that JSON does not know
        raise RefusedConfig(Reason.MALFORMED, f"{path.name} should state what JSON knows, it does not") from None
