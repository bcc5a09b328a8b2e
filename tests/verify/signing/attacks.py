"""What an attacker may do to a signed folder, with a key or without."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prosocial.core.errors import ArtefactError
from prosocial.core.files import read_json
from prosocial.core.signing import SigningKey
from prosocial.core.signing.envelope import seal, unverified
from prosocial.editing.checkpoints.digests import combine, digest_tensor
from prosocial.editing.checkpoints.folder import Checkpoint
from prosocial.export import write_manifest
from prosocial.verify.signing import sign_folder

from ...signing_helpers import Json, change_json, change_payload, flip_last_byte, sign_payload

Attack = Callable[[Path, Path], Any]  # on a copy of the folder, in the world of keys and originals
EDIT, AUDIT, PARITY, EXPORT = (f"signatures/{name}.intoto.json" for name in ("edit", "audit", "parity", "export"))
SIGNATURE = "model.sig"


def delete(name: str) -> Attack:
    return lambda folder, world: (folder / name).unlink()


def flip(name: str) -> Attack:
    return lambda folder, world: flip_last_byte(folder / name)


def write(name: str, text: str) -> Attack:
    return lambda folder, world: (folder / name).write_text(text)


def from_another(name: str, other: str = "second") -> Attack:
    return lambda folder, world: shutil.copy(world / other / name, folder / name)


def forged(name: str, change: Callable[[Json], Any]) -> Attack:
    """Change what a statement says, and leave its signature."""
    return lambda folder, world: change_payload(folder / name, change)


def signed(name: str, change: Callable[[Json], Any], key: str = "own") -> Attack:
    """Change what a statement says, and sign it: with `own`, what only the publisher could do."""
    return lambda folder, world: sign_payload(folder / name, world / f"{key}.pem", change)


def envelope(name: str, change: Callable[[Json], Any]) -> Attack:
    return lambda folder, world: change_json(folder / name, change)


def leave_out_the_weights(said: Json) -> None:
    said["predicate"]["serialization"]["ignore_paths"].append("model.safetensors")
    resources = said["predicate"]["resources"]
    said["predicate"]["resources"] = [each for each in resources if each["name"] != "model.safetensors"]


def list_a_file_twice(said: Json) -> None:
    said["predicate"]["resources"].append(said["predicate"]["resources"][0])


def sign_everything_as_another(folder: Path, world: Path) -> None:
    sign_folder(folder, SigningKey.read(world / "other.pem"), reports={"audit": world / "audit.json"}, again=True)


def another_edit_with_right_digests(folder: Path, world: Path) -> None:
    """Change a weight and every digest that speaks of it, and sign the files; the edit was stated of other weights."""
    flip_last_byte(folder / "model.safetensors")
    digests = {name: digest_tensor(tensor) for name, tensor in Checkpoint.open(folder).tensors.items()}

    def correct(record: Json) -> None:
        for name, digest in digests.items():
            record["result"]["tensors"][name]["blake3"] = digest.blake3
        record["result"]["fingerprint"] = combine(digests.values())

    change_json(folder / "edit_record.json", correct)
    kept = {name: (folder / name).read_bytes() for name in (EDIT, AUDIT)}
    sign_folder(folder, SigningKey.read(world / "own.pem"), again=True)
    for name, raw in kept.items():
        (folder / name).write_bytes(raw)


def result_of_another_verdict(name: str, verdict: str) -> Attack:
    """Sign a result again after the report said something else."""

    def attack(folder: Path, world: Path) -> None:
        report = read_json(folder / "signatures" / f"{name}.json") | {"verdict": verdict}
        for test in report.get("gates", report.get("levels")):
            test["verdict"] = verdict
        (world / "changed.json").write_text(json.dumps(report))
        sign_folder(folder, SigningKey.read(world / "own.pem"), reports={name: world / "changed.json"})

    return attack


def statement_in_the_place_of_the_signature(folder: Path, world: Path) -> None:
    seal(folder / SIGNATURE, unverified(folder / EDIT), SigningKey.read(world / "own.pem"))


def manifest_that_does_not_match(folder: Path, world: Path) -> None:
    """A file is not listed, and everything is signed over that."""
    manifest = read_json(folder / "manifest.json")
    manifest["files"].pop("genai_config.json")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    kept = (folder / EXPORT).read_bytes()
    (folder / SIGNATURE).unlink()
    (folder / EXPORT).unlink()
    with pytest.raises(ArtefactError, match="list every file"):
        sign_folder(folder, SigningKey.read(world / "own.pem"))
    (folder / EXPORT).write_bytes(kept)
    from_another(SIGNATURE, "bundle")(folder, world)


def manifest_written_again(folder: Path, world: Path) -> None:
    flip_last_byte(folder / "model.onnx.data")
    manifest = read_json(folder / "manifest.json")
    write_manifest(folder, facts={key: value for key, value in manifest.items() if key not in ("files", "schema")})


# What is done, to which folder, the link that tells it, its state, and words that name it.
