"""The keys that an operator trusts for safety configs, their scopes, and revocations (torch-free).

A trust file:

    {"schema": "prosocial.trust/1",
     "keys": {"editor": {"key": "editor.pub", "allowed": ["violence"], "highest_threshold": 0.4}},
     "revoked_serials": [], "revoked_keys": []}

Paths of keys are relative to the file. A bare public key (PEM, without a trust file) is limited only by the bundle's
ceilings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError

from prosocial.core.errors import ArtefactError, InputError
from prosocial.core.files import delete_asides, read_json, sync_path, write_json
from prosocial.core.locking import locked
from prosocial.core.settings import StrictSettings, first_fault
from prosocial.core.signing.keys import TrustedKey

from ..configs.refusal import Reason, RefusedConfig
from ..configs.safety_config import Share
from .identifiers import key_digest, key_digests, serial_number

SCHEMA = "prosocial.trust/1"


class Scope(StrictSettings):
    """The limits of one key.

    Attributes:
        key: path of the public key.
        allowed: harm categories that the key's configs may allow.
        highest_threshold: highest risk threshold that the key's configs may set.
    """

    key: str
    allowed: list[str]
    highest_threshold: Share

    def within(self, other: "Scope") -> "Scope":
        """Return the intersection of two scopes."""
        allowed = [name for name in self.allowed if name in other.allowed]
        return self.model_copy(
            update={"allowed": allowed, "highest_threshold": min(self.highest_threshold, other.highest_threshold)}
        )

    def require(self, allowed: Sequence[str], threshold: float, *, who: str) -> None:
        """Check that a config's mask and threshold are within the scope; `who` names the key in errors.

        Raises:
            RefusedConfig: the config allows a further category or has a higher threshold.
        """
        beyond = sorted(set(allowed) - set(self.allowed))
        if beyond:
            raise RefusedConfig(
                Reason.BEYOND_SCOPE,
                f"key {who} may allow {', '.join(self.allowed) or 'nothing'}, found {', '.join(beyond)}",
            )
        if threshold > self.highest_threshold:
            raise RefusedConfig(
                Reason.BEYOND_SCOPE, f"key {who} may set a threshold up to {self.highest_threshold}, found {threshold}"
            )


class TrustFile(StrictSettings):
    """The content of an operator's trust file.

    Attributes:
        keys: scope by key name.
        revoked_serials: serial numbers of revoked statements, in any spelling that `serial_number` accepts.
        revoked_keys: digests of revoked public keys, in any spelling that `key_digest` accepts.
    """

    schema_: Literal["prosocial.trust/1"] = Field(default="prosocial.trust/1", alias="schema")
    keys: dict[str, Scope] = Field(default_factory=dict)
    revoked_serials: list[Annotated[str, AfterValidator(serial_number)]] = Field(default_factory=list)
    revoked_keys: list[Annotated[str, AfterValidator(key_digest)]] = Field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> "TrustFile":
        """Read a trust file.

        Raises:
            ArtefactError: the file is missing, its schema differs, or a value is invalid (the message names it). One
                revocation that names nothing refuses the whole file, because somebody meant to revoke something.
        """
        try:
            return cls.model_validate(read_json(path, schema=SCHEMA))
        except ValidationError as error:
            raise ArtefactError(f"{path} should be a trust file; {first_fault(error)}") from None

    def revoke(self, *, serials: Sequence[str] = (), keys: Sequence[str] = ()) -> "TrustFile":
        """Return a copy with further revocations; existing ones stay.

        Raises:
            InputError: a serial number or key digest is malformed.
        """
        lists = {
            "revoked_serials": sorted({*self.revoked_serials, *map(serial_number, serials)}),
            "revoked_keys": sorted({*self.revoked_keys, *map(key_digest, keys)}),
        }
        return self.model_copy(update=lists)

    def write(self, path: Path) -> None:
        """Write the file."""
        write_json(path, self.model_dump(by_alias=True))


def revoke_in(path: Path, *, serials: Sequence[str] = (), keys: Sequence[str] = ()) -> TrustFile:
    """Add revocations to a trust file and return its new content; simultaneous calls lose none.

    The file is read and written under a lock, and again if an editor changed it in between. A link to a trust file
    stays a link.

    Raises:
        ArtefactError: the file is missing or not a valid trust file.
        InputError: a serial number or key digest is malformed.
        StorageError: the file cannot be written.
    """
    path = path.resolve()
    if not path.is_file():
        raise ArtefactError(f"expected a trust file at {path}, found no such file: check the path")
    with locked(path.with_name(f".{path.name}.lock")):
        delete_asides(path.parent, path.name)
        while True:
            before = path.read_bytes()
            revoked = TrustFile.read(path).revoke(serials=serials, keys=keys)
            if path.read_bytes() == before:
                revoked.write(path)
                sync_path(path.parent)
                return revoked


@dataclass(frozen=True)
class TrustStore:
    """The trusted keys and revocations of an operator, from one or more files.

    Attributes:
        keys: the public keys.
        scopes: scope by key digest; a key without one is limited only by the bundle's ceilings.
        revoked_serials: serial numbers of revoked statements, whichever key signed them.
        revoked_keys: hex digests of revoked public keys.
    """

    keys: tuple[TrustedKey, ...]
    scopes: dict[str, Scope]
    revoked_serials: frozenset[str] = frozenset()
    revoked_keys: frozenset[str] = frozenset()

    @classmethod
    def read(cls, paths: Sequence[Path | str]) -> "TrustStore":
        """Read trust files (`.json`) and bare public keys (PEM).

        Raises:
            InputError: `paths` holds no key, a file is missing or invalid, a key has an unsupported type, or a key
                appears twice, so that its scope would be ambiguous.
        """
        keys: list[TrustedKey] = []
        scopes: dict[str, Scope] = {}
        serials: set[str] = set()
        revoked: set[str] = set()
        for path in map(Path, paths):
            if path.suffix.lower() != ".json":
                keys.append(TrustedKey.read(path))
                continue
            said = TrustFile.read(path)
            serials.update(said.revoked_serials)
            revoked.update(said.revoked_keys)
            for name, scope in said.keys.items():
                key = TrustedKey(name, TrustedKey.read(path.parent / scope.key).key)
                keys.append(key)
                scopes[key.hint] = scope
        hints = [key.hint for key in keys]
        twice = [key.name for key in keys if hints.count(key.hint) > 1]
        if not keys or twice:
            actual = f"the same key under the names {' and '.join(twice)}" if twice else "none"
            raise InputError(f"there should be at least one trusted key, each given once, found {actual}")
        return cls(tuple(keys), scopes, frozenset(serials), frozenset(revoked))

    def has_revoked(self, key: TrustedKey) -> bool:
        """Return whether a key was revoked, under any of its digests."""
        return not self.revoked_keys.isdisjoint(key_digests(key))
