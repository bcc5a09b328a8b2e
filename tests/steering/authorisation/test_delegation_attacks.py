"""Further attacks on a delegation: each is refused in one line, whatever a trusted key was made to sign."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from prosocial.core.signing.envelope import seal, unseal
from prosocial.steering.configs import RefusedConfig

from ...signing_helpers import make_key
from .test_delegation import World

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def world(pico: Any, tmp_path: Path) -> World:
    for name in ("owner", "editor", "stranger"):
        make_key(tmp_path, name)
    return World(tmp_path, pico.config())


def predicate(**changes: Any) -> Change:
    return lambda said: said["predicate"].update(changes)


def scope(**changes: Any) -> Change:
    return lambda said: said["predicate"]["keys"]["editor"].update(changes)


def without(*path: str) -> Change:
    def change(said: dict[str, Any]) -> None:
        for part in path[:-1]:
            said = said[part]
        del said[path[-1]]

    return change


def renamed(name: str) -> Change:
    return lambda said: said["predicate"].update(keys={name: said["predicate"]["keys"]["editor"]})


def again(change: Callable[[str], str]) -> Change:
    """Name the key a second time, in another spelling and with a wider scope."""

    def attack(said: dict[str, Any]) -> None:
        keys = said["predicate"]["keys"]
        keys["second"] = {
            "key": change(keys["editor"]["key"]),
            "allowed": ["violence", "drugs"],
            "highest_threshold": 1,
        }

    return attack


SIGNED: dict[str, Change] = {
    "named twice": again(str),
    "named twice, with line ends of Windows": again(lambda pem: pem.replace("\n", "\r\n")),
    "named twice, with text before it": again(lambda pem: f"a comment\n{pem}"),
    "named twice, with blank lines after it": again(lambda pem: f"{pem}\n\n"),
    "no keys": without("predicate", "keys"),
    "keys are none": predicate(keys=None),
    "keys are a list": predicate(keys=["editor"]),
    "scope without categories": without("predicate", "keys", "editor", "allowed"),
    "scope without threshold": without("predicate", "keys", "editor", "highest_threshold"),
    "categories are a text": scope(allowed="violence"),
    "categories are none": scope(allowed=None),
    "threshold above 1": scope(highest_threshold=1.5),
    "threshold below 0": scope(highest_threshold=-0.1),
    "threshold is a text": scope(highest_threshold="0.6"),
    "threshold is a giant": scope(highest_threshold=10**300),
    "threshold is true": scope(highest_threshold=True),
    "one field more in the scope": scope(valid_days=3),
    "one field more": predicate(revoked=[]),
    "name of several lines": renamed("a\nb"),
    "name in capitals": renamed("Editor"),
    "empty name": renamed(""),
    "very long name": renamed("a" * 100_000),
    "serial in capitals": predicate(serial="A" * 32),
    "serial with a line end": predicate(serial="a" * 32 + "\n"),
    "no serial": without("predicate", "serial"),
    "begins without a zone": predicate(not_before="2026-01-01T00:00:00"),
    "ends before it begins": predicate(not_after="2020-01-01T00:00:00Z"),
    "ends in the year 99999": predicate(not_after="99999-01-01T00:00:00Z"),
    "ends at a number": predicate(not_after=4e9),
    "key of another curve": lambda said: None,  # replaced below
    "key of no lines": scope(key=""),
    "key that is a path": scope(key="editor.pub"),
    "key with half a character": scope(key="\ud800"),
    "key that is a list": scope(key=["editor.pub"]),
    "subject is empty": lambda said: said.update(subject=[]),
    "subject is a text": lambda said: said.update(subject="model.onnx"),
    "subject without digest": lambda said: said["subject"][0].pop("digest"),
    "subject with a second file": lambda said: said["subject"].append({"name": "x", "digest": {"blake3": "0" * 64}}),
}


@pytest.mark.parametrize("change", SIGNED.values(), ids=SIGNED)
def test_an_odd_statement_of_a_trusted_key_is_refused(world: World, change: Change, request: Any) -> None:
    signed = world.sign(threshold=0.5)
    world.name()
    assert world.authorise(signed).name == "crime-novel", "the control"
    said, _ = unseal(world.delegation, [world.key("owner").public])
    if "another curve" in request.node.name:
        make_key(world.folder, "p384", ec.SECP384R1())
        change = scope(key=(world.folder / "p384.pub").read_text())
    try:
        change(said)
        seal(world.delegation, said, world.key("owner"))
    except UnicodeEncodeError:
        return  # cannot be signed at all
    with pytest.raises(RefusedConfig) as refused:
        world.authorise(signed)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 1500


FILES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_text(""),
    "not JSON": lambda path: path.write_text("hello"),
    "a list": lambda path: path.write_text("[]"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "number of 5,000 digits": lambda path: path.write_text('{"dsseEnvelope": ' + "1" * 5000 + "}"),
    "two megabytes": lambda path: path.write_text(path.read_text() + " " * (2 << 20)),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe" + path.read_bytes()),
    "envelope twice": lambda path: path.write_text(path.read_text().replace("{", '{"dsseEnvelope": {},', 1)),
    "no envelope": lambda path: path.write_text("{}"),
    "envelope is a text": lambda path: path.write_text('{"dsseEnvelope": "x"}'),
    "no signature": lambda path: path.write_text(json.dumps(_changed(path, signatures=[]))),
    "two signatures": lambda path: path.write_text(json.dumps(_changed(path, signatures=[{"sig": ""}] * 2))),
    "payload of another type": lambda path: path.write_text(json.dumps(_changed(path, payloadType="text/plain"))),
}


def _changed(path: Path, **changes: Any) -> dict[str, Any]:
    bundle: dict[str, Any] = json.loads(path.read_text())
    bundle["dsseEnvelope"].update(changes)
    return bundle


@pytest.mark.parametrize("attack", FILES.values(), ids=FILES)
def test_an_odd_file_is_refused(world: World, attack: Callable[[Path], object]) -> None:
    signed = world.sign(threshold=0.5)
    world.name()
    attack(world.delegation)
    with pytest.raises(RefusedConfig) as refused:
        world.authorise(signed)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 1500


def test_a_revocation_in_capitals_stops_a_named_key_and_a_statement(world: World) -> None:
    serial, signed = world.name().serial, world.sign()
    hint = world.key("editor").public.hint
    for lists in ({"revoked_serials": [serial.upper()]}, {"revoked_keys": [f" {hint.upper()}\n"]}):
        with pytest.raises(RefusedConfig, match="was revoked"):
            world.authorise(signed, world.trust(**lists))
