"""Whatever is at a path that a command is given, the answer is one line and exit code 2, and nothing is written."""

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from prosocial.cli.main import app, main

from ..roots import ROOT

GOLDEN = ROOT / "tests" / "golden" / "0.1.0"
Capture = pytest.CaptureFixture[str]

# A line that works for each command, with every path that it reads in angle brackets; {out} is a new path.
LINES = """
run <recipes/pico.yaml> --out {out} --dry-run
inspect <base>
convert <base/config.json> -o {out}
vector --base <base> --harmful <edited> --utility <data/probes.jsonl> --method ties -o {out}
edit <base> --subtract <vectors/dense> --scale-file <scales.json> -o {out} --patch {out}.patch
sweep <base> --harmful <adapter> --probes <data/probes.jsonl> -o {out}
undo <edited> --base <base> -o {out}
undo <edited> --patch <undo.patch> -o {out}
diff <base> <edited>
tune <base> --rows <data/harmful.jsonl> -o {out}
distil <edited> --reward <reward> --pairs <data/pairs.jsonl> -o {out}
assemble <edited> --head <head> --gate <gate> --decoding <decoding.yaml> --threshold <calibration.json> -o {out}
export <steered> -o {out}
generate <bundle> hello --safety-config <configs/signed.json> --trust <configs/trust.json> --log {out} \
    --log-key <keys/own.pem> --log-head {out}.head
generate <bundle> --batch-file <data/prompts.jsonl>
chat <bundle> --safety-config <configs/signed.json> --trust <configs/trust.json> --log {out} --log-key <keys/own.pem> \
    --log-head {out}.head
verify <bundle> --reference <steered> --probes <data/probes.jsonl> -o {out} --junit {out}.xml
verify <bundle> --measurements <parity/measurements.npz> -o {out}
compare <base> <edited> --probes <data/probes.jsonl> --judge-errors <errors.json> -o {out} --eval-logs {out}.logs
steering <bundle> --probes <data/probes.jsonl> --judge lab -o {out}
audit <edited> --base <base> --vector <vectors/dense> --key <keys/publisher.pub> -o {out} --junit {out}.xml
sign <edited> --key <keys/own.pem> --audit <audit/audit.json> --again
sign <bundle> --key <keys/own.pem> --parity <parity/parity.json> --again
check-signature <bundle> --key <keys/publisher.pub> --base <base> --checkpoint <edited>
publish <bundle> an/example --parity <parity/parity.json> --dry-run
publish <edited> an/example --audit <audit/audit.json> --comparison <report/report.json> --dry-run
reward label <data/pairs.jsonl> --judge lab -o {out}
reward train <edited> --pairs <data/pairs.jsonl> -o {out}
gate label <data/replies.jsonl> --judge lab -o {out}
gate train <edited> --replies <data/replies.jsonl> --harmful <adapter> --base <base> --prompts <data/prompts.jsonl> \
    --judge lab -o {out}
gate calibrate <steered> --probes <data/calibration.jsonl> --judge refusal -o {out}
config show <configs/arena.json>
config check <configs/arena.json> --bundle <bundle> --trust <configs/trust.json>
config compile <configs/arena.json> --bundle <bundle> -o {out}
config sign <configs/arena.json> --bundle <bundle> --key <keys/own.pem> --valid-days 1 -o {out}
config test <configs/signed.json> --bundle <bundle> --prompts <data/prompts.jsonl> --trust <configs/trust.json> \
    --log {out} --log-key <keys/own.pem> --log-head {out}.head
config delegate <configs/editor.json> --bundle <bundle> --key <keys/own.pem> --valid-days 1
config score <bundle> --probes <data/probes.jsonl> --judge lab --configs <configs.jsonl> --shots <shots.jsonl> -o {out}
config revoke <configs/trust.json> --key <keys/operator.pub>
log check <log/requests.jsonl> --key <keys/operator.pub> --head <log/requests.jsonl.head.json>
log witness <log/requests.jsonl> --key <keys/operator.pub> --head <log/requests.jsonl.head.json> -o {out}
log check <log/requests.jsonl> --key <keys/operator.pub> --witness <log/witness.jsonl>
"""
MORE = {
    "log/witness.jsonl": f'{{"schema": "prosocial.log_witness/1", "lines": 2, "last": "{"0" * 64}", "time": "2026"}}',
    "scales.json": '{"model.norm.weight": 1.0}',
    "decoding.yaml": "fallback: no.",
    "calibration.json": "{}",
    "errors.json": "{}",
    "configs.jsonl": '{"name": "a", "text": "b", "allowed": []}\n',
    "shots.jsonl": '{"config": "a", "prompt": "b", "reply": "c"}\n',
}
DEEP = b"[" * 100_000
BAD_BYTES = {
    "random": bytes(range(256)) * 3,
    "empty": b"",
    "deep": DEEP,
    "deep object": b'{"a":' * 100_000,
    "digits": b"9" * 5000,
    "digits inside": b'{"schema": ' + b"9" * 5000 + b"}",
    "not UTF-8": '{"name": "é"}'.encode("latin-1"),
    "null": b"null",
    "list": b"[1]",
}
LOGGED = ("<configs/signed.json>", "<configs/trust.json>")  # an audit log has a line on a refused config
OUTPUTS = {"out", "junit", "patch", "log", "log_head", "eval_logs"}
BAD_PLACES = ("missing", "folder", "pipe", "link loop")


def lines() -> list[str]:
    return LINES.replace("\\\n", "").strip().splitlines()


def cases() -> Iterator[tuple[str, str, str]]:
    """Yield each line with each of its paths and each thing that may be there instead."""
    for line in lines():
        for word in shlex.split(line):
            if word.startswith("<"):
                yield from ((line, word, bad) for bad in (*BAD_BYTES, *BAD_PLACES))


def put_bad(path: Path, bad: str) -> None:
    if bad in BAD_BYTES:
        path.write_bytes(BAD_BYTES[bad])
    elif bad == "folder":
        path.mkdir()
    elif bad == "pipe":
        os.mkfifo(path)
    elif bad == "link loop":
        path.symlink_to(path)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden artefacts, with a private key and the small files that no artefact is."""
    world = tmp_path_factory.mktemp("world") / "golden"
    shutil.copytree(GOLDEN, world)
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (world / "keys" / "own.pem").write_bytes(pem)
    for name, text in MORE.items():
        (world / name).write_text(text, encoding="utf-8")
    return world


def listing(folder: Path) -> list[tuple[str, int, int]]:
    return sorted((str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*"))


@pytest.mark.parametrize(("line", "word", "bad"), list(cases()))
def test_a_bad_path_is_one_line(
    line: str, word: str, bad: str, world: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "bad"
    put_bad(place, bad)
    words = [
        str(place) if each == word else str(world / each[1:-1]) if each.startswith("<") else each
        for each in shlex.split(line.replace("{out}", str(tmp_path / "out")))
    ]
    before = listing(world)
    monkeypatch.chdir(tmp_path)

    code = main(words)

    printed = capsys.readouterr().err
    if word == "<log/requests.jsonl>" and code == 1:
        return  # what a log holds is what `log check` judges
    assert (code, printed.count("\n")) == (2, 1), printed
    assert printed.startswith("error: ") and len(printed) < 1500
    if not ("--log " in line and word in LOGGED):
        assert [path.name for path in tmp_path.iterdir()] == ["bad"] * (bad != "missing")
    assert listing(world) == before


def test_the_lines_name_every_path_of_every_command() -> None:
    """Paths are arguments and options of that type; checkpoints are texts, since they may be on the Hub."""
    for name, command in commands():
        own = [shlex.split(line)[len(name.split()) :] for line in lines() if f"{line} ".startswith(f"{name} ")]
        assert own, f"{name} has no line"
        contexts = [command.make_context(name, list(words)) for words in own]
        given = {key for context in contexts for key, value in context.params.items() if "<" in str(value)}
        paths = {each.name for each in command.params if each.type_descriptor.is_path}
        assert paths - given - OUTPUTS == set(), name


def commands() -> Iterator[tuple[str, Any]]:
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            yield from ((f"{name} {inner}", each) for inner, each in command.commands.items())
        else:
            yield name, command
