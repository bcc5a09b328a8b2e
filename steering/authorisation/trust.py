"""Whom the operator trusts with safety configs, how far, and what was revoked (torch-free).

    {"schema": "prosocial.trust/1",
     "keys": {"editor": {"key": "editor.pub", "allowed": ["violence"], "highest_threshold": 0.4}},
     "revoked_serials": [], "revoked_keys": []}

Paths of keys are relative to the file. A bare public key is trusted with all that the bundle's ceilings leave.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from prosocial.core.errors import ArtefactError, InputError
from prosocial.core.files import read_json, write_json
from prosocial.core.settings import StrictSettings, first_fault
from prosocial.core.signing.keys import TrustedKey

from ..configs.refusal import Reason, RefusedConfig
from ..configs.safety_config import Share

SCHEMA = "prosocial.trust/1"


class Scope(StrictSettings):
    """How far a key is trusted.

    Attributes:
        key: file of the public key. allowed: categories that it may let through. highest_threshold: that it may set.
    """

    key: str
    allowed: list[str]
    highest_threshold: Share

    def within(self, other: "Scope") -> "Scope":
        """Return what both scopes give."""
        allowed = [name for name in self.allowed if name in other.allowed]
        return self.model_copy(
            update={"allowed": allowed, "highest_threshold": min(self.highest_threshold, other.highest_threshold)}
        )

    def require(self, allowed: Sequence[str], threshold: float, *, who: str) -> None:
        """Check that a config lies within.

        Raises:
            RefusedConfig: it allows or tolerates more.
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
    """The operator's file.

    Attributes:
        keys: scopes by name. revoked_serials: of signed configs. revoked_keys: hex digests of public keys.
    """

    schema_: Literal["prosocial.trust/1"] = Field(default="prosocial.trust/1", alias="schema")
    keys: dict[str, Scope] = Field(default_factory=dict)
    revoked_serials: list[str] = Field(default_factory=list)
    revoked_keys: list[str] = Field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> "TrustFile":
        """Read the file.

        Raises:
            ArtefactError: it is missing, of another schema, or a value does not hold (names it).
        """
        try:
            return cls.model_validate(read_json(path, schema=SCHEMA))
        except ValidationError as error:
            raise ArtefactError(f"{path} should be a trust file; {first_fault(error)}") from None

    def revoke(self, *, serials: Sequence[str] = (), keys: Sequence[str] = ()) -> "TrustFile":
        """Return it with more revoked; nothing is ever taken off the lists."""
        lists = {
            "revoked_serials": sorted({*self.revoked_serials, *serials}),
            "revoked_keys": sorted({*self.revoked_keys, *keys}),
        }
        return self.model_copy(update=lists)

    def write(self, path: Path) -> None:
        """Write the file."""
        write_json(path, self.model_dump(by_alias=True))


@dataclass(frozen=True)
class TrustStore:
    """All that an operator trusts.

    Attributes:
        keys: the public keys. scopes: by the digest of a key; a key without one is bound by the ceilings only.
        revoked_serials, revoked_keys: honoured for every key.
    """

    keys: tuple[TrustedKey, ...]
    scopes: dict[str, Scope]
    revoked_serials: frozenset[str] = frozenset()
    revoked_keys: frozenset[str] = frozenset()

    @classmethod
    def read(cls, paths: Sequence[Path | str]) -> "TrustStore":
        """Read trust files (`.json`) and bare public keys (PEM).

        Raises:
            InputError: nothing is given, a file is no such file, a key is of another kind, or one comes twice (which
                of its scopes would bind it?).
        """
        keys: list[TrustedKey] = []
        scopes: dict[str, Scope] = {}
        serials: set[str] = set()
        revoked: set[str] = set()
        for path in map(Path, paths):
            if path.suffix != ".json":
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
            found = f"{' and '.join(twice)} are one key" if twice else "none"
            raise InputError(f"the trusted keys should be at least one, each given once: found {found}")
        return cls(tuple(keys), scopes, frozenset(serials), frozenset(revoked))
