"""Keys that a bundle names: a trusted key says in a signed statement whose configs this bundle may follow (torch-free).

The statement lies with the bundle, among its signatures, and speaks of one graph and one category registry. It gives
no more than who signed it has: a named key is bound by its own scope and by that of the key which named it, as long as
both statements hold, and it can name no further keys.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

from cryptography.exceptions import UnsupportedAlgorithm
from pydantic import AwareDatetime, Field, ValidationError, field_validator, model_validator

from prosocial.editing.errors import InputError
from prosocial.editing.files import canonical_json
from prosocial.editing.settings import StrictSettings, first_fault

from ..decoding import DecodingConfig
from ..signing.envelope import BrokenSignature, Statement, seal, statement, unseal
from ..signing.keys import SigningKey, TrustedKey
from ..signing.model_signature import STATEMENTS_FOLDER
from .authorised import utc_now
from .refusal import Reason, RefusedConfig
from .safety_config import Name
from .subject import graph_digests, graph_subject, stated_graph
from .trust import Scope, TrustFile, TrustStore

PREDICATE_TYPE = "urn:prosocial:config-keys:v1"
DELEGATION_FILE = f"{STATEMENTS_FOLDER}/config-keys.sigstore"


class NamedKeys(StrictSettings):
    """What such a statement says.

    Attributes:
        keys: scopes by name; each scope's `key` is the public key itself, in PEM.
        categories: digest of the registry that the scopes' names are from. serial: for revocation.
        not_before, not_after: when it holds; the end is excluded.
    """

    keys: dict[Name, Scope] = Field(min_length=1)
    categories: str
    serial: str = Field(pattern="^[0-9a-f]{32}$")
    not_before: AwareDatetime
    not_after: AwareDatetime

    @field_validator("keys")
    @classmethod
    def _are_keys(cls, keys: dict[str, Scope]) -> dict[str, Scope]:
        for name, scope in keys.items():
            try:
                TrustedKey.parse(name, scope.key.encode())
            except (InputError, UnsupportedAlgorithm) as error:
                raise ValueError(str(error)) from None
        return keys

    @model_validator(mode="after")
    def _lasts(self) -> Self:
        if self.not_after <= self.not_before:
            raise ValueError(f"not_after should be later than not_before {self.not_before}, found {self.not_after}")
        return self


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
    begin = (not_before or utc_now()).replace(microsecond=0)
    keys = {name: _with_pem(name, scope, source.parent) for name, scope in said.keys.items()}
    try:
        named = NamedKeys(
            keys=keys,
            categories=decoding.category_registry.digest,
            serial=secrets.token_hex(16),
            not_before=begin,
            not_after=begin + timedelta(days=valid_days),
        )
    except OverflowError:
        raise InputError(f"a delegation should hold for a time above 0 days, found {valid_days}") from None
    except ValidationError as error:
        raise InputError(f"{source} should name keys to follow for a time above 0 days; {first_fault(error)}") from None
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
    said, signer = _signed(path, trust.keys)
    if signer.hint in trust.revoked_keys:
        raise RefusedConfig(Reason.REVOKED_KEY, f"key {signer.name}, which names keys in {path.name}, was revoked")
    named = _named(path, said)
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


def _signed(path: Path, keys: Sequence[TrustedKey]) -> tuple[Statement, TrustedKey]:
    try:
        return unseal(path, keys)
    except BrokenSignature as error:
        raise RefusedConfig(Reason.NOT_TRUSTED, str(error)) from None


def _named(path: Path, said: Statement) -> NamedKeys:
    if said.get("predicateType") != PREDICATE_TYPE:
        raise RefusedConfig(Reason.MALFORMED, f"{path.name} should state {PREDICATE_TYPE}, it states something else")
    try:
        return NamedKeys.model_validate_json(canonical_json(said["predicate"]))
    except ValidationError as error:
        raise RefusedConfig(Reason.MALFORMED, f"{path.name}; {first_fault(error)}") from None
    except ValueError:  # a number that JSON does not know
        raise RefusedConfig(Reason.MALFORMED, f"{path.name} should name keys with scopes, it does not") from None
