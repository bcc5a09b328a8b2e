"""A config from outside is followed only as it was signed, by a trusted key, for this bundle, in its time and scope."""

import base64
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from prosocial.core.errors import ArtefactError, InputError
from prosocial.core.signing import SigningKey, TrustedKey
from prosocial.core.signing.envelope import seal, statement, unseal
from prosocial.steering.authorisation.authorisation import PREDICATE_TYPE, Claims, authorise, sign_config
from prosocial.steering.authorisation.trust import TrustFile, TrustStore
from prosocial.steering.configs import NamedConfig, Reason, RefusedConfig
from prosocial.steering.decoding.config import DecodingConfig
from prosocial.steering.decoding.controls import Steering, control_arrays, fallback_of, with_safety_text

from ...signing_helpers import change_payload, make_key

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAMES = {"decoding.json": "c", "model.onnx": "a", "model.onnx.data": "b"}
MANIFEST = {"files": {name: {"blake3": digit * 64} for name, digit in NAMES.items()}}
TEXT = "Fights may be told."


def named(**changes: Any) -> NamedConfig:
    return NamedConfig.model_validate({"name": "crime-novel", "text": TEXT, "allowed": ["violence"]} | changes)


@dataclass
class World:
    """An operator's folder: the keys, who is trusted, and a signed config that is in order."""

    folder: Path
    decoding: DecodingConfig

    def key(self, name: str = "editor") -> SigningKey:
        return SigningKey.read(self.folder / f"{name}.pem")

    def sign(self, config: NamedConfig | None = None, *, key: str = "editor", **changes: Any) -> Path:
        out = self.folder / f"signed-{key}.json"
        options = {"decoding": self.decoding, "manifest": MANIFEST, "valid_days": 30, "not_before": NOW} | changes
        sign_config(config or named(), out, key=self.key(key), **options)
        return out

    def forge(self, change: Callable[[dict[str, Any]], object], *, key: str = "editor") -> Path:
        """Sign with a trusted key what `sign_config` would refuse to sign."""
        out = self.sign()
        said, _ = unseal(out, [self.key().public])
        change(said)
        seal(out, said, self.key(key))
        return out

    def trust(self, **changes: Any) -> TrustStore:
        scope = {"key": "editor.pub", "allowed": ["violence"], "highest_threshold": 0.7}
        said = {"schema": "prosocial.trust/1", "keys": {"editor": scope}} | changes
        (self.folder / "trust.json").write_text(json.dumps(said))
        return TrustStore.read([self.folder / "trust.json"])

    def authorise(self, path: Path, trust: TrustStore | None = None, **changes: Any) -> Any:
        options = {"decoding": self.decoding, "manifest": MANIFEST, "clock": lambda: NOW} | changes
        return authorise(path, trust=trust or self.trust(), **options)


@pytest.fixture
def world(pico: Any, tmp_path: Path) -> World:
    for name in ("editor", "stranger"):
        make_key(tmp_path, name)
    return World(tmp_path, pico.config())


def test_a_signed_config_is_followed_like_one_of_the_bundle(world: World) -> None:
    config = named(threshold=0.65, preference={"empathy": 1.0}, fallback="No.", system_prompt="Rules: {safety_config}")
    found = world.authorise(world.sign(config))
    steering = Steering(safety_config=found)
    arrays = control_arrays(world.decoding, [steering])
    assert arrays.allowed.tolist() == [[1, 0, 0]] and arrays.preference.tolist() == [[1, 0]]
    assert round(float(arrays.harm_threshold[0]), 4) == 0.65 and fallback_of(world.decoding, steering) == "No."
    assert with_safety_text(world.decoding, steering, []) == [{"role": "system", "content": f"Rules: {TEXT}"}]
    assert (found.name, found.key_name, found.key) == ("crime-novel", "editor", world.key().public.hint)


def unsigned(world: World) -> Path:
    named().write(world.folder / "plain.json")
    return world.folder / "plain.json"


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[[World], Path]:
    def attack(world: World) -> Path:
        out = world.sign()
        change_payload(out, change)
        return out

    return attack


def forged(change: Callable[[dict[str, Any]], object]) -> Callable[[World], Path]:
    return lambda world: world.forge(change)


def within(said: dict[str, Any], **changes: Any) -> None:
    said["predicate"].update(changes)


def config(said: dict[str, Any], **changes: Any) -> None:
    said["predicate"]["config"].update(changes)


def stripped(world: World) -> Path:
    """Take the signature out of the envelope."""
    out = world.sign()
    document = json.loads(out.read_text())
    document["dsseEnvelope"]["signatures"] = []
    out.write_text(json.dumps(document))
    return out


def swapped(world: World) -> Path:
    """Put one config's payload under another's signature."""
    out = world.sign()
    first = json.loads(out.read_text())
    other = json.loads(world.sign(named(threshold=0.1), key="stranger").read_text())
    first["dsseEnvelope"]["payload"] = other["dsseEnvelope"]["payload"]
    out.write_text(json.dumps(first))
    return out


def retyped(world: World) -> Path:
    """Sign another kind of statement with the same key: what a folder's signature says is no config."""
    out = world.folder / "other.json"
    seal(out, statement("urn:prosocial:edit:v1", [], {}), world.key())
    return out


def written(text: str) -> Callable[[World], Path]:
    def attack(world: World) -> Path:
        (world.folder / "odd.json").write_text(text)
        return world.folder / "odd.json"

    return attack


PERIOD = {"not_before": "2026-01-01T00:00:00Z", "not_after": "2026-02-01T00:00:00Z"}
ATTACKS: list[tuple[str, Callable[[World], Path], Reason, str]] = [
    ("unsigned", unsigned, Reason.UNSIGNED, "no signature"),
    ("other key", lambda world: world.sign(key="stranger"), Reason.NOT_TRUSTED, "none of the 1 trusted keys"),
    ("signature taken out", stripped, Reason.NOT_TRUSTED, "one signature"),
    ("payload of another", swapped, Reason.NOT_TRUSTED, "none of the 1 trusted keys"),
    ("changed mask", changed(lambda said: config(said, allowed=["drugs"])), Reason.NOT_TRUSTED, "changed since"),
    ("changed text", changed(lambda said: config(said, text="All may.")), Reason.NOT_TRUSTED, "changed since"),
    (
        "changed expiry",
        changed(lambda said: within(said, not_after="2099-01-01T00:00:00Z")),
        Reason.NOT_TRUSTED,
        "signed by",
    ),
    ("changed graph", changed(lambda said: said.update(subject=[])), Reason.NOT_TRUSTED, "changed since"),
    ("expired", forged(lambda said: within(said, **PERIOD)), Reason.EXPIRED, "until 2026-02-01"),
    (
        "not yet valid",
        lambda world: world.sign(not_before=NOW + timedelta(days=1)),
        Reason.NOT_YET_VALID,
        "2026-03-02",
    ),
    ("ends too early", forged(lambda said: within(said, not_after="2026-01-01T00:00:00Z")), Reason.MALFORMED, "later"),
    ("no time zone", forged(lambda said: within(said, not_after="2099-01-01T00:00:00")), Reason.MALFORMED, "timezone"),
    ("no expiry", forged(lambda said: said["predicate"].pop("not_after")), Reason.MALFORMED, "not_after"),
    ("no serial", forged(lambda said: said["predicate"].pop("serial")), Reason.MALFORMED, "serial"),
    ("more than is known", forged(lambda said: within(said, ceiling=1.0)), Reason.MALFORMED, "ceiling"),
    ("other bundle", forged(lambda said: said.update(subject=[])), Reason.OTHER_BUNDLE, "another bundle"),
    ("other weights", forged(lambda said: said["subject"].pop()), Reason.OTHER_BUNDLE, "another bundle"),
    ("other registry", forged(lambda said: within(said, categories="0" * 64)), Reason.OTHER_REGISTRY, "categories"),
    ("other statement", retyped, Reason.MALFORMED, "safety-config"),
    ("unknown category", forged(lambda said: config(said, allowed=["lies"])), Reason.BEYOND_CEILING, "unknown harm"),
    ("other", forged(lambda said: config(said, allowed=["other"])), Reason.BEYOND_CEILING, "other shut"),
    ("shut category", forged(lambda said: config(said, allowed=["drugs"])), Reason.BEYOND_CEILING, "drugs shut"),
    ("threshold above", forged(lambda said: config(said, threshold=0.95)), Reason.BEYOND_CEILING, "0.9"),
    ("threshold no number", forged(lambda said: config(said, threshold="0.5")), Reason.MALFORMED, "threshold"),
    ("unknown attribute", forged(lambda said: config(said, preference={"evil": 1.0})), Reason.BEYOND_CEILING, "evil"),
    ("threshold beyond scope", lambda world: world.sign(named(threshold=0.8)), Reason.BEYOND_SCOPE, "up to 0.7"),
    ("no text", forged(lambda said: config(said, text=" ")), Reason.MALFORMED, "text"),
    ("template without slot", forged(lambda said: config(said, system_prompt="Hi")), Reason.MALFORMED, "slot"),
    ("two slots", forged(lambda said: config(said, system_prompt="{safety_config}" * 2)), Reason.MALFORMED, "2 times"),
    ("no JSON", written("allowed: all"), Reason.MALFORMED, "JSON"),
    ("JSON of another shape", written("[]"), Reason.MALFORMED, "JSON"),
    ("deep JSON", written("[" * 200_000), Reason.MALFORMED, "JSON"),
    ("too large", written(" " * (1 << 21)), Reason.MALFORMED, "at most"),
    ("not there", lambda world: world.folder / "nothing.json", Reason.MALFORMED, "no such file"),
]


@pytest.mark.parametrize(("attack", "reason", "match"), [row[1:] for row in ATTACKS], ids=[row[0] for row in ATTACKS])
def test_every_attack_is_refused_in_one_logged_line(
    world: World,
    attack: Callable[[World], Path],
    reason: Reason,
    match: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "prosocial.configs"), pytest.raises(RefusedConfig, match=match) as refused:
        world.authorise(attack(world))
    assert refused.value.reason is reason and "\n" not in str(refused.value)
    assert [str(refused.value) in line for line in caplog.messages] == [True]


def test_what_was_revoked_is_refused(world: World) -> None:
    out = world.sign()
    serial = world.authorise(out).serial
    with pytest.raises(RefusedConfig, match="serial") as refused:
        world.authorise(out, world.trust(revoked_serials=[serial]))
    assert refused.value.reason is Reason.REVOKED_SERIAL
    with pytest.raises(RefusedConfig, match="editor was revoked") as refused:
        world.authorise(out, world.trust(revoked_keys=[world.key().public.hint]))
    assert refused.value.reason is Reason.REVOKED_KEY


def test_a_category_outside_the_keys_scope_is_refused(world: World) -> None:
    scope = {"key": "editor.pub", "allowed": [], "highest_threshold": 0.9}
    out = world.sign()
    with pytest.raises(RefusedConfig, match="may allow nothing, found violence") as refused:
        world.authorise(out, world.trust(keys={"editor": scope}))
    assert refused.value.reason is Reason.BEYOND_SCOPE


def test_the_bundles_own_default_threshold_is_held_against_the_scope(world: World) -> None:
    """A config that names no threshold gets the bundle's 0.6."""
    scope = {"key": "editor.pub", "allowed": ["violence"], "highest_threshold": 0.5}
    with pytest.raises(RefusedConfig, match=r"up to 0\.5, found 0\.6"):
        world.authorise(world.sign(), world.trust(keys={"editor": scope}))


def test_a_bare_key_is_bound_by_the_ceilings_alone(world: World) -> None:
    trust = TrustStore.read([world.folder / "stranger.pub"])
    assert world.authorise(world.sign(named(threshold=0.9), key="stranger"), trust).config.threshold == 0.9


def test_it_is_refused_as_soon_as_its_time_is_over(world: World) -> None:
    now = [NOW]
    steering = Steering(safety_config=world.authorise(world.sign(valid_days=1), clock=lambda: now[0]))
    assert with_safety_text(world.decoding, steering, [])
    now[0] += timedelta(days=1)
    with pytest.raises(RefusedConfig, match="until 2026-03-02") as refused:
        with_safety_text(world.decoding, steering, [])
    assert refused.value.reason is Reason.EXPIRED


def test_it_is_refused_where_names_mean_something_else(world: World) -> None:
    found = world.authorise(world.sign())
    other = world.decoding.model_copy(update={"category_definitions": {"violence": "Bees."}})
    with pytest.raises(RefusedConfig, match="other categories"):
        control_arrays(other, [Steering(safety_config=found)])


def test_a_manifest_without_blake3_binds_nothing(world: World) -> None:
    out = world.sign()
    with pytest.raises(ArtefactError, match="BLAKE3"):
        world.authorise(out, manifest={"files": {"model.onnx": {"sha256": "a" * 64}}})


@pytest.mark.parametrize(
    ("given", "changes", "match"),
    [
        ({"allowed": ["other"]}, {}, "other shut"),
        ({"allowed": ["lies"]}, {}, "unknown harm category"),
        ({"threshold": 0.95}, {}, "ceiling"),
        ({}, {"valid_days": 0}, "more than 0 days"),
        ({}, {"valid_days": 1e12}, "more than 0 days"),
    ],
)
def test_what_would_be_refused_is_not_signed(
    world: World, given: dict[str, Any], changes: dict[str, Any], match: str
) -> None:
    with pytest.raises(InputError, match=match):
        world.sign(named(**given), **changes)
    assert not list(world.folder.glob("signed*"))


def test_a_text_alone_is_not_signed(world: World) -> None:
    with pytest.raises(InputError, match="config compile"):
        world.sign(NamedConfig.model_validate({"name": "x", "text": TEXT}))


def test_the_payload_names_no_more_than_the_claims(world: World) -> None:
    said, _ = unseal(world.sign(), [world.key().public])
    assert set(said["predicate"]) == set(Claims.model_fields) and said["predicateType"] == PREDICATE_TYPE
    raw = json.loads((world.folder / "signed-editor.json").read_text())["dsseEnvelope"]["payload"]
    assert b"PRIVATE" not in base64.b64decode(raw)


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ([], "at least one"),
        (["editor.pub", "trust.json"], "the same key under the names editor.pub and editor"),
        (["p384.pub"], "EC secp384r1"),
        (["editor.pem"], "public key in PEM"),
        (["scopeless.json"], r"keys.editor.allowed"),
    ],
)
def test_trust_that_is_none_is_refused(world: World, files: list[str], match: str) -> None:
    world.trust()
    make_key(world.folder, "p384", ec.SECP384R1())
    scope = {"key": "editor.pub", "highest_threshold": 0.5}
    (world.folder / "scopeless.json").write_text(json.dumps({"schema": "prosocial.trust/1", "keys": {"editor": scope}}))
    with pytest.raises(InputError, match=match):
        TrustStore.read([world.folder / name for name in files])


def test_revoking_only_ever_adds(world: World) -> None:
    path, hint = world.folder / "trust.json", TrustedKey.read(world.folder / "editor.pub").hint
    world.trust(revoked_serials=["b" * 32])
    TrustFile.read(path).revoke(serials=["a" * 32], keys=[hint]).write(path)
    found = TrustFile.read(path)
    assert found.revoked_serials == ["a" * 32, "b" * 32] and found.revoked_keys == [hint]
    assert set(found.keys) == {"editor"}
