"""A bundle's named keys are followed only as a trusted key has named them, within both scopes, in both times."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from prosocial.core.errors import InputError
from prosocial.core.signing import SigningKey
from prosocial.core.signing.envelope import seal, unseal
from prosocial.steering.authorisation.authorisation import authorise, sign_config
from prosocial.steering.authorisation.delegation import NamedKeys, delegate_keys
from prosocial.steering.authorisation.trust import TrustStore
from prosocial.steering.configs import NamedConfig, Reason, RefusedConfig
from prosocial.steering.decoding.config import DecodingConfig

from ...signing_helpers import change_payload, make_key

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MANIFEST = {"files": {"decoding.json": {"blake3": "d" * 64}, "model.onnx": {"blake3": "a" * 64}}}


@dataclass
class World:
    """An operator who trusts `owner` alone, and a bundle in which the owner names `editor`."""

    folder: Path
    decoding: DecodingConfig

    @property
    def delegation(self) -> Path:
        return self.folder / "signatures" / "config-keys.sigstore"

    def key(self, name: str) -> SigningKey:
        return SigningKey.read(self.folder / f"{name}.pem")

    def name(
        self, *, signer: str = "owner", named: str = "editor", valid_days: float = 30, **changes: Any
    ) -> NamedKeys:
        scope = {"key": f"{named}.pub", "allowed": ["violence"], "highest_threshold": 0.6} | changes
        said = {"schema": "prosocial.trust/1", "keys": {named: scope}}
        (self.folder / "keys.json").write_text(json.dumps(said))
        options = {"decoding": self.decoding, "manifest": MANIFEST, "not_before": NOW}
        return delegate_keys(
            self.folder / "keys.json", self.delegation, key=self.key(signer), valid_days=valid_days, **options
        )

    def sign(self, *, signer: str = "editor", valid_days: float = 365, **changes: Any) -> Path:
        config = {"name": "crime-novel", "text": "Fights may be told.", "allowed": ["violence"]} | changes
        out = self.folder / f"signed-{len(list(self.folder.iterdir()))}.json"
        sign_config(
            NamedConfig.model_validate(config),
            out,
            key=self.key(signer),
            decoding=self.decoding,
            manifest=MANIFEST,
            valid_days=valid_days,
            not_before=NOW,
        )
        return out

    def trust(self, scope: dict[str, Any] | None = None, **changes: Any) -> TrustStore:
        if scope is None and not changes:
            return TrustStore.read([self.folder / "owner.pub"])
        own = {"key": "owner.pub", "allowed": ["violence", "drugs"], "highest_threshold": 0.7} | (scope or {})
        said = {"schema": "prosocial.trust/1", "keys": {"owner": own}} | changes
        (self.folder / "trust.json").write_text(json.dumps(said))
        return TrustStore.read([self.folder / "trust.json"])

    def authorise(self, path: Path, trust: TrustStore | None = None, **changes: Any) -> Any:
        options = {"decoding": self.decoding, "manifest": MANIFEST, "clock": lambda: NOW, "delegation": self.delegation}
        return authorise(path, trust=trust or self.trust(), **(options | changes))


@pytest.fixture
def world(pico: Any, tmp_path: Path) -> World:
    for name in ("owner", "editor", "stranger"):
        make_key(tmp_path, name)
    return World(tmp_path, pico.config())


def test_a_named_key_is_followed_while_both_statements_hold(world: World) -> None:
    signed = world.sign(threshold=0.5)
    with pytest.raises(RefusedConfig, match="none of the 1 trusted keys"):
        world.authorise(signed)

    world.name(valid_days=30)
    found = world.authorise(signed)
    assert (found.name, found.key) == ("crime-novel", world.key("editor").public.hint)
    assert found.key_name == "editor (named by owner.pub)" and found.not_after == NOW + timedelta(days=30)
    assert world.authorise(world.sign(signer="owner")).key_name == "owner.pub", "a trusted key needs nobody's word"
    assert world.authorise(world.sign(valid_days=1)).not_after == NOW + timedelta(days=1)


Attack = Callable[[World], tuple[Path, TrustStore | None]]


def scoped(scope: dict[str, Any], **config: Any) -> Attack:
    """The owner's own scope is narrower than what it gives to the editor."""

    def attack(world: World) -> tuple[Path, TrustStore | None]:
        world.name()
        return world.sign(**config), world.trust(scope)

    return attack


def named(signer: str = "owner", **changes: Any) -> Attack:
    def attack(world: World) -> tuple[Path, TrustStore | None]:
        world.name(signer=signer, **changes)
        return world.sign(), None

    return attack


def changed(world: World) -> tuple[Path, TrustStore | None]:
    """Put more into a scope after it was signed."""
    world.name(allowed=[])
    change_payload(world.delegation, lambda said: said["predicate"]["keys"]["editor"].update(allowed=["violence"]))
    return world.sign(), None


def chained(world: World) -> tuple[Path, TrustStore | None]:
    """A named key names a stranger."""
    world.name()
    world.name(signer="editor", named="stranger")
    return world.sign(signer="stranger"), None


def resealed(change: Callable[[dict[str, Any]], object]) -> Attack:
    """Sign with the trusted key what `delegate_keys` would refuse to sign."""

    def attack(world: World) -> tuple[Path, TrustStore | None]:
        world.name()
        said, _ = unseal(world.delegation, [world.key("owner").public])
        change(said)
        seal(world.delegation, said, world.key("owner"))
        return world.sign(), None

    return attack


def revoked(what: str) -> Attack:
    def attack(world: World) -> tuple[Path, TrustStore | None]:
        serial = world.name().serial
        lists = {"serial": {"revoked_serials": [serial]}}
        lists |= {name: {"revoked_keys": [world.key(name).public.hint]} for name in ("owner", "editor")}
        return world.sign(), world.trust(**lists[what])

    return attack


ATTACKS: list[tuple[str, Attack, Reason, str]] = [
    ("beyond the named key's scope", named(allowed=[]), Reason.BEYOND_SCOPE, "may allow nothing, found violence"),
    ("beyond its highest threshold", named(highest_threshold=0.1), Reason.BEYOND_SCOPE, "threshold up to 0.1"),
    ("beyond the scope of who named it", scoped({"allowed": ["drugs"]}), Reason.BEYOND_SCOPE, "found violence"),
    (
        "beyond that one's highest threshold",
        scoped({"highest_threshold": 0.3}, threshold=0.4),
        Reason.BEYOND_SCOPE,
        "up to 0.3",
    ),
    ("named by a stranger", named(signer="stranger"), Reason.NOT_TRUSTED, "statement of further keys"),
    ("named by itself", named(signer="editor"), Reason.NOT_TRUSTED, "none of the 1 trusted keys"),
    ("changed since", changed, Reason.NOT_TRUSTED, "changed since"),
    ("named by a named key", chained, Reason.NOT_TRUSTED, "none of the 1 trusted keys"),
    ("another is named", named(named="stranger"), Reason.NOT_TRUSTED, "none of the 1 trusted keys"),
    (
        "no such statement",
        resealed(lambda said: said.update(predicateType="urn:x")),
        Reason.MALFORMED,
        "should be a statement of type",
    ),
    ("no key", resealed(lambda said: said["predicate"].update(keys={})), Reason.MALFORMED, "keys"),
    (
        "no public key",
        resealed(lambda said: said["predicate"]["keys"]["editor"].update(key="x")),
        Reason.MALFORMED,
        "public key in PEM",
    ),
    (
        "for another graph",
        resealed(lambda said: said["subject"][0]["digest"].update(blake3="c" * 64)),
        Reason.OTHER_BUNDLE,
        "another bundle",
    ),
    (
        "for other categories",
        resealed(lambda said: said["predicate"].update(categories="0" * 64)),
        Reason.OTHER_REGISTRY,
        "other categories",
    ),
    ("statement revoked", revoked("serial"), Reason.REVOKED_SERIAL, "was revoked"),
    ("who named it revoked", revoked("owner"), Reason.REVOKED_KEY, "was revoked"),
    ("named key revoked", revoked("editor"), Reason.REVOKED_KEY, "key editor was revoked"),
]


@pytest.mark.parametrize(
    ("attack", "reason", "match"), [each[1:] for each in ATTACKS], ids=[each[0] for each in ATTACKS]
)
def test_what_a_bundle_names_goes_no_further(world: World, attack: Attack, reason: Reason, match: str) -> None:
    path, trust = attack(world)
    with pytest.raises(RefusedConfig, match=match) as refused:
        world.authorise(path, trust)
    assert refused.value.reason is reason


def test_an_expired_delegation_is_refused_at_once_and_in_use(world: World) -> None:
    world.name(valid_days=2)
    signed, clock = world.sign(), [NOW]
    found = world.authorise(signed, clock=lambda: clock[0])
    for days, reason in ((-1, Reason.NOT_YET_VALID), (2, Reason.EXPIRED)):
        clock[0] = NOW + timedelta(days=days)
        for use in (found.require_time, lambda: world.authorise(signed, clock=lambda: clock[0])):
            with pytest.raises(RefusedConfig) as refused:
                use()
            assert refused.value.reason is reason


def names_twice(said: dict[str, Any]) -> None:
    keys = said["predicate"]["keys"]
    keys["again"] = keys["editor"] | {"allowed": ["violence", "drugs"], "highest_threshold": 0.7}


def test_a_key_named_twice_has_no_scope_at_all(world: World) -> None:
    path, _ = resealed(names_twice)(world)
    with pytest.raises(RefusedConfig, match="named once, found one as again and editor") as refused:
        world.authorise(path)
    assert refused.value.reason is Reason.MALFORMED


def test_a_file_that_names_a_key_twice_is_not_signed(world: World) -> None:
    scope = {"key": "editor.pub", "allowed": [], "highest_threshold": 0.1}
    wider = scope | {"allowed": ["violence"], "highest_threshold": 0.6}
    said = {"schema": "prosocial.trust/1", "keys": {"editor": scope, "again": wider}}
    (world.folder / "keys.json").write_text(json.dumps(said))
    options = {"decoding": world.decoding, "manifest": MANIFEST, "valid_days": 1}
    with pytest.raises(InputError, match="named once, found one as editor and again"):
        delegate_keys(world.folder / "keys.json", world.delegation, key=world.key("owner"), **options)
    assert not world.delegation.exists()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"valid_days": 0}, "more than 0 days"),
        ({"highest_threshold": 0.99}, "threshold"),
        ({"allowed": ["other"]}, "other"),
        ({"key": "owner.pem"}, "public key in PEM"),
    ],
)
def test_what_could_never_be_followed_is_not_signed(world: World, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        world.name(**changes)
    assert not world.delegation.exists()
