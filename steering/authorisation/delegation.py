"""Delegation: a trusted key names further keys whose configs one bundle accepts, in a signed statement (torch-free).

The statement is stored with the bundle's signatures and is valid for the files of one bundle and one category registry.
A delegated key is limited by its own scope and by that of the key that named it, and by the validity of the statement.
It cannot name further keys.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from pydantic import Field, ValidationError, field_validator

from prosocial.core.errors import InputError
from prosocial.core.files import alone, delete_asides, storage_errors
from prosocial.core.settings import first_fault
from prosocial.core.signing.envelope import seal, statement
from prosocial.core.signing.keys import SigningKey, TrustedKey
from prosocial.core.signing.model_signature import STATEMENTS_FOLDER

from ..configs.refusal import Reason, RefusedConfig
from ..configs.safety_config import Name
from ..decoding.config import DecodingConfig
from .statements import DatedClaims, bound_subject, claims_of, dated, open_signed, require_bound, stated_files
from .trust import Scope, TrustFile, TrustStore

PREDICATE_TYPE = "urn:prosocial:config-keys:v1"
DELEGATION_FILE = f"{STATEMENTS_FOLDER}/config-keys.sigstore"


class NamedKeys(DatedClaims):
    """The content of a delegation: keys with their scopes, and its validity and serial number.

    Attributes:
        keys: scope by key name; `key` of each scope is the public key in PEM.
    """

    keys: dict[Name, Scope] = Field(min_length=1)

    @field_validator("keys")
    @classmethod
    def _are_keys(cls, keys: dict[str, Scope]) -> dict[str, Scope]:
        names: dict[str, str] = {}
        for name, scope in keys.items():
            try:
                hint = TrustedKey.parse(name, scope.key.encode()).hint
            except (InputError, UnsupportedAlgorithm, UnicodeEncodeError) as error:
                raise ValueError(str(error)) from None
            if hint in names:
                raise ValueError(f"each key should be named once, found one as {names[hint]} and {name}")
            names[hint] = name
        return keys


@dataclass(frozen=True)
class Delegation:
    """A verified delegation.

    Attributes:
        keys: the delegated public keys.
        scopes: scope by key digest, already limited to the scope of the signer.
        serial: serial number of the statement.
        signer: the key that signed the statement.
        not_before: start of validity.
        not_after: end of validity (exclusive).
        binds_all: whether it binds all files of the bundle, and not only the graph as version 0.1.0.
    """

    keys: tuple[TrustedKey, ...]
    scopes: Mapping[str, Scope]
    serial: str
    signer: TrustedKey
    not_before: datetime
    not_after: datetime
    binds_all: bool = True


def delegate_keys(
    source: Path,
    out: Path,
    *,
    key: SigningKey,
    decoding: DecodingConfig,
    manifest: Mapping[str, Any],
    valid_days: float,
    not_before: datetime | None = None,
) -> NamedKeys:
    """Sign a statement that a bundle accepts configs of the keys in a trust file, each within its scope.

    Args:
        source: path of the trust file.
        out: path of the statement, in the bundle at `DELEGATION_FILE`; an existing file is replaced.
        key: private key that operators trust.
        decoding: decoding config of the bundle.
        manifest: manifest of the bundle.
        valid_days: length of the validity in days.
        not_before: start of the validity; default: now.

    Raises:
        InputError: the file names no key or one key twice, a scope exceeds the bundle's ceilings, or the statement
            would never be valid.
    """
    said = TrustFile.read(source)
    for scope in said.keys.values():
        decoding.allowed_mask(scope.allowed)
        decoding.check_threshold(scope.highest_threshold)
    times = dated("a delegation", valid_days=valid_days, not_before=not_before)
    keys = {name: _with_pem(name, scope, source.parent) for name, scope in said.keys.items()}
    try:
        named = NamedKeys(keys=keys, categories=decoding.category_registry.digest, **times)
    except ValidationError as error:
        raise InputError(f"{source} should name public keys, each once; {first_fault(error)}") from None
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with alone(out):
        delete_asides(out.parent, out.name)
        seal(out, statement(PREDICATE_TYPE, bound_subject(manifest), named.model_dump(mode="json")), key)
    return named


def read_delegation(
    path: Path,
    *,
    trust: TrustStore,
    decoding: DecodingConfig,
    manifest: Mapping[str, Any],
    graph_files: Collection[str] = (),
) -> Delegation:
    """Return the keys that a bundle's statement names, after verifying that a trusted key signed it.

    Its validity is not checked here: `authorise` checks the time of the config and of the statement together.

    Raises:
        RefusedConfig: no trusted key signed it, it was changed or revoked, or it is for another bundle or other
            categories.
    """
    said, signer = open_signed(path, trust.keys)
    if trust.has_revoked(signer):
        raise RefusedConfig(Reason.REVOKED_KEY, f"key {signer.name}, which names keys in {path.name}, was revoked")
    named = claims_of(said, path, NamedKeys, predicate_type=PREDICATE_TYPE)
    if named.serial in trust.revoked_serials:
        raise RefusedConfig(Reason.REVOKED_SERIAL, f"{path.name} with serial {named.serial} was revoked")
    binds_all = require_bound(stated_files(said, path), manifest, graph_files, what=path.name)
    if named.categories != decoding.category_registry.digest:
        raise RefusedConfig(Reason.OTHER_REGISTRY, f"{path.name} names keys for other categories")
    keys = [TrustedKey.parse(name, scope.key.encode()) for name, scope in named.keys.items()]
    own = trust.scopes.get(signer.hint)
    scopes = {
        key.hint: scope if own is None else scope.within(own)
        for key, scope in zip(keys, named.keys.values(), strict=True)
    }
    return Delegation(tuple(keys), scopes, named.serial, signer, named.not_before, named.not_after, binds_all)


def _with_pem(name: str, scope: Scope, folder: Path) -> Scope:
    key = TrustedKey.read(folder / scope.key)
    return scope.model_copy(update={"key": key.pem.decode("ascii")})
