"""Keys that a bundle names: a trusted key says in a signed statement whose configs this bundle may follow (torch-free).

The statement lies with the bundle, among its signatures, and speaks of one graph and one category registry. It gives
no more than who signed it has: a named key is bound by its own scope and by that of the key which named it, as long as
both statements hold, and it can name no further keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from pydantic import Field, ValidationError, field_validator

from prosocial.core.errors import InputError
from prosocial.core.settings import first_fault
from prosocial.core.signing.envelope import seal, statement
from prosocial.core.signing.keys import SigningKey, TrustedKey
from prosocial.core.signing.model_signature import STATEMENTS_FOLDER

from ..configs.refusal import Reason, RefusedConfig
from ..configs.safety_config import Name
from ..decoding.config import DecodingConfig
from .statements import DatedClaims, claims_of, dated, graph_digests, graph_subject, open_signed, stated_graph
from .trust import Scope, TrustFile, TrustStore

PREDICATE_TYPE = "urn:prosocial:config-keys:v1"
DELEGATION_FILE = f"{STATEMENTS_FOLDER}/config-keys.sigstore"


class NamedKeys(DatedClaims):
    """What such a statement says, with when it holds.

    Attributes:
        keys: scopes by name; each scope's `key` is the public key itself, in PEM.
    """

    keys: dict[Name, Scope] = Field(min_length=1)

    @field_validator("keys")
    @classmethod
    def _are_keys(cls, keys: dict[str, Scope]) -> dict[str, Scope]:
        for name, scope in keys.items():
            try:
                TrustedKey.parse(name, scope.key.encode())
            except (InputError, UnsupportedAlgorithm) as error:
                raise ValueError(str(error)) from None
        return keys


@dataclass(frozen=True)
class Delegation:
    """Keys that a trusted key has named, each with what is left of its scope.

    Attributes:
        keys: the public keys. scopes: by the digest of a key. serial: of the statement. signer: who named them.
        not_before, not_after: when the statement holds.
    """

    keys: tuple[TrustedKey, ...]
    scopes: Mapping[str, Scope]
    serial: str
    signer: TrustedKey
    not_before: datetime
    not_after: datetime


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
    """Sign that a bundle may follow configs of the keys of a trust file, each within its scope.

    Args:
        source: the trust file. out: the statement, in the bundle at `DELEGATION_FILE`; one that is there is replaced.
        key: of somebody whom operators trust. decoding, manifest: of the bundle.
        valid_days: from `not_before` (default: now) on.

    Raises:
        InputError: the file names no key, a scope goes beyond the bundle's ceilings, or it would never hold.
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
        raise InputError(f"{source} should name keys to follow; {first_fault(error)}") from None
    out.parent.mkdir(parents=True, exist_ok=True)
    seal(out, statement(PREDICATE_TYPE, graph_subject(manifest), named.model_dump(mode="json")), key)
    return named


def read_delegation(
    path: Path, *, trust: TrustStore, decoding: DecodingConfig, manifest: Mapping[str, Any]
) -> Delegation:
    """Return the keys that a bundle's statement names, if a key that the operator trusts has signed it.

    Its time is not looked at: a config's own time and that of the statement are held against the clock together.

    Raises:
        RefusedConfig: nobody trusted signed it, it was changed or revoked, or is for another graph or other categories.
    """
    said, signer = open_signed(path, trust.keys)
    if signer.hint in trust.revoked_keys:
        raise RefusedConfig(Reason.REVOKED_KEY, f"key {signer.name}, which names keys in {path.name}, was revoked")
    named = claims_of(said, path, NamedKeys, predicate_type=PREDICATE_TYPE)
    if named.serial in trust.revoked_serials:
        raise RefusedConfig(Reason.REVOKED_SERIAL, f"{path.name} with serial {named.serial} was revoked")
    if stated_graph(said, path) != graph_digests(manifest):
        raise RefusedConfig(Reason.OTHER_BUNDLE, f"{path.name} names keys for the graph of another bundle")
    if named.categories != decoding.category_registry.digest:
        raise RefusedConfig(Reason.OTHER_REGISTRY, f"{path.name} names keys for other categories")
    keys = [TrustedKey.parse(name, scope.key.encode()) for name, scope in named.keys.items()]
    own = trust.scopes.get(signer.hint)
    scopes = {
        key.hint: scope if own is None else scope.within(own)
        for key, scope in zip(keys, named.keys.values(), strict=True)
    }
    return Delegation(tuple(keys), scopes, named.serial, signer, named.not_before, named.not_after)


def _with_pem(name: str, scope: Scope, folder: Path) -> Scope:
    key = TrustedKey.read(folder / scope.key)
    return scope.model_copy(update={"key": key.pem.decode("ascii")})
