"""Artefacts with a broken or mistyped file inside: one line and exit code 2, and nothing is written."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prosocial.cli.main import main

from .test_bad_paths import BAD_BYTES, DEEP
from .test_bad_paths import world as world

Capture = pytest.CaptureFixture[str]
NOTES = ("warning:", "signature not checked", "  ")  # a line that begins with spaces is progress
WRONG: list[Any] = [None, "x", [], {}, -1, 1e308, 10**19, True, [None], {"a": 1}, "\ud800", 2.5]
# (artefact, its file, the keys that are mistyped one by one, a line with @ for the changed copy)
JSON_FILES = {
    "gate": ("gate", "gate_config.json", "assemble <edited> --head <head> --gate @ -o {out}"),
    "head": ("head", "head_config.json", "assemble <edited> --head @ --gate <gate> -o {out}"),
    "reward": ("reward", "reward_config.json", "distil <edited> --reward @ --pairs <data/pairs.jsonl> -o {out}"),
    "vector": ("vectors/dense", "vector.json", "edit <base> --subtract @ --scale 1 -o {out}"),
    "adapter": ("adapter", "adapter_config.json", "vector --base <base> --harmful @ -o {out}"),
    "adapter to publish": ("adapter", "edit_adapter.json", "publish @ an/example --dry-run"),
    "parity to sign": ("parity", "parity.json", "sign <bundle> --key <keys/own.pem> --parity @/parity.json --again"),
    "audit to sign": ("audit", "audit.json", "sign <edited> --key <keys/own.pem> --audit @/audit.json --again"),
    "parity to publish": ("parity", "parity.json", "publish <bundle> an/example --parity @/parity.json --dry-run"),
    "audit to publish": ("audit", "audit.json", "publish <edited> an/example --audit @/audit.json --dry-run"),
    "trust": ("configs", "trust.json", "config revoke @/trust.json --serial 0123456789abcdef0123456789abcdef"),
    "config": ("configs", "arena.json", "config check @/arena.json --bundle <bundle>"),
    "signed config": ("configs", "signed.json", "config show @/signed.json"),
    "record": ("edited", "edit_record.json", "undo @ --base <base> -o {out}"),
    "index": ("base", "model.safetensors.index.json", "inspect @"),
    "base config": ("base", "config.json", "diff @ <edited>"),
    "bundle manifest": ("bundle", "manifest.json", "generate @ hello --max-new-tokens 1"),
    "decoding": ("bundle", "decoding.json", "config show @"),
    "genai": ("bundle", "genai_config.json", "inspect @"),
}


def mutations(value: Any, depth: int = 0) -> Iterator[Any]:
    """Yield the value with each key gone, and with each value of another type, three levels deep."""
    if isinstance(value, dict):
        for key, inner in list(value.items())[:10]:
            yield {name: other for name, other in value.items() if name != key}
            yield from ({**value, key: wrong} for wrong in WRONG)
            if depth < 2:
                yield from ({**value, key: changed} for changed in mutations(inner, depth + 1))
    elif isinstance(value, list) and value:
        yield from ([wrong, *value[1:]] for wrong in WRONG)
        if depth < 2:
            yield from ([changed, *value[1:]] for changed in mutations(value[0], depth + 1))


def _words(line: str, world: Path, copy: Path, out: Path) -> list[str]:
    words = line.replace("@", str(copy)).replace("{out}", str(out)).split()
    return [str(world / word[1:-1]) if word.startswith("<") else word for word in words]


def _require_verdict_or_line(words: list[str], capsys: Capture, what: object) -> int:
    code = main(words)
    printed = capsys.readouterr()
    assert code in (0, 1, 2, 3), (what, printed.err)
    if code == 2:
        lines = [line for line in printed.err.splitlines() if not line.startswith(NOTES)]
        assert len(lines) == 1 and lines[0].startswith("error: "), (what, printed.err)
    return code


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.prove) if case == "reward" else case for case in JSON_FILES]
)
def test_a_mistyped_file_is_a_verdict_or_one_line(case: str, world: Path, tmp_path: Path, capsys: Capture) -> None:
    """Every fifteenth mutation, or forty of them; a mutation that says nothing wrong may pass."""
    artefact, name, line = JSON_FILES[case]
    shutil.copytree(world, tmp_path / "world")
    given = json.loads((world / artefact / name).read_text(encoding="utf-8"))
    changed, codes = list(mutations(given)), []
    for number, value in enumerate(changed[:: max(1, len(changed) // 40)]):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(world / artefact, copy)
        (copy / name).write_text(json.dumps(value), encoding="utf-8")
        out = tmp_path / f"out{number}"
        codes.append(_require_verdict_or_line(_words(line, tmp_path / "world", copy, out), capsys, value))
        assert codes[-1] != 2 or not out.exists()
    assert 2 in codes or case in ("index", "genai", "base config")


@pytest.mark.parametrize("bad", BAD_BYTES)
@pytest.mark.parametrize("case", JSON_FILES)
def test_a_broken_file_is_a_verdict_or_one_line(
    case: str, bad: str, world: Path, tmp_path: Path, capsys: Capture
) -> None:
    artefact, name, line = JSON_FILES[case]
    copy, out = tmp_path / "copy", tmp_path / "out"
    shutil.copytree(world / artefact, copy)
    (copy / name).write_bytes(BAD_BYTES[bad])

    code = _require_verdict_or_line(_words(line, world, copy, out), capsys, bad)

    assert code == 2 or case in ("base config", "genai")
    assert not out.exists()


@pytest.mark.parametrize(
    "where", ["gate/gate.safetensors", "head/head.safetensors", "reward/adapter_model.safetensors"]
)
@pytest.mark.parametrize("content", [b"", DEEP, bytes(range(256))], ids=["empty", "deep", "random"])
def test_broken_weights_are_one_line(where: str, content: bytes, world: Path, tmp_path: Path, capsys: Capture) -> None:
    artefact = where.partition("/")[0]
    copy, out = tmp_path / "copy", tmp_path / "out"
    shutil.copytree(world / artefact, copy)
    (copy / where.partition("/")[2]).write_bytes(content)

    assert _require_verdict_or_line(_words(JSON_FILES[artefact][2], world, copy, out), capsys, where) == 2
    assert not out.exists()
