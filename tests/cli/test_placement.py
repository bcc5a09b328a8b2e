"""Where models run: what a machine lacks is refused in one line before anything starts, and what was used is said."""

import json
from pathlib import Path

import pytest

from prosocial.cli.main import main

from ..roots import ROOT

GOLDEN = ROOT / "tests" / "golden" / "0.1.0"
PROBES = f"--probes {GOLDEN}/data/probes.jsonl"
# Every command that runs a model in torch, with a new folder {out}.
IN_TORCH = (
    f"run {GOLDEN}/recipes/pico.yaml --out {{out}}",
    f"sweep {GOLDEN}/base --harmful {GOLDEN}/adapter {PROBES} -o {{out}}",
    f"distil {GOLDEN}/edited --reward {GOLDEN}/reward --pairs {GOLDEN}/data/pairs.jsonl -o {{out}}",
    f"gate train {GOLDEN}/edited --replies {GOLDEN}/data/replies.jsonl -o {{out}}",
    f"gate calibrate {GOLDEN}/steered --probes {GOLDEN}/data/calibration.jsonl --judge refusal -o {{out}}",
    f"compare {GOLDEN}/base {GOLDEN}/bundle {PROBES} -o {{out}}",
    f"steering {GOLDEN}/steered {PROBES} --judge lab -o {{out}}",
    f"verify {GOLDEN}/bundle --reference {GOLDEN}/steered {PROBES} -o {{out}}",
    f"config score {GOLDEN}/steered {PROBES} --judge lab -o {{out}}",
)
# Every command that runs a bundle.
BUNDLES = (
    f"generate {GOLDEN}/bundle hello",
    f"chat {GOLDEN}/bundle",
    *(line for line in IN_TORCH if line.startswith(("compare", "verify"))),
    f"steering {GOLDEN}/bundle {PROBES} --judge lab -o {{out}}",
    f"config score {GOLDEN}/bundle {PROBES} --judge lab -o {{out}}",
)


def refusal(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a line that bad input should stop; return the one line that it prints."""
    out = tmp_path / "out"
    assert main(line.format(out=out).split()) == 2
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1 and not printed.out and not out.exists()
    return printed.err


@pytest.mark.parametrize("line", IN_TORCH, ids=lambda line: " ".join(line.split()[:2]).split(" /")[0])
def test_a_device_that_is_not_there_stops_a_command_at_once(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "'cuda:97'" in refusal(f"{line} --device cuda:97", tmp_path, capsys)


@pytest.mark.parametrize("line", BUNDLES, ids=lambda line: " ".join(line.split()[:2]).split(" /")[0])
def test_a_provider_that_is_not_there_is_refused_with_those_that_are(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(f"{line} --provider tpu", tmp_path, capsys)
    assert "cpu)" in said and "'tpu'" in said and "prosocial[gpu]" in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (f"compare {GOLDEN}/bundle {GOLDEN}/bundle {PROBES} --device cpu", "use --provider"),
        (f"compare {GOLDEN}/base {GOLDEN}/edited {PROBES} --provider cpu", "there is none"),
        (f"compare {GOLDEN}/base {GOLDEN}/edited {PROBES} --dtype int8", "int8"),
    ],
)
def test_an_option_without_effect_is_refused(
    words: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in " ".join(refusal(words, tmp_path, capsys).split())


def test_a_comparison_says_what_its_models_ran_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"compare {GOLDEN}/base {GOLDEN}/bundle {PROBES} --limit 4 --max-new-tokens 3 --dtype bfloat16 --json"
    assert main([*line.split(), "--device", "cpu", "-o", str(tmp_path / "out")]) in (0, 1, 3)
    facts = json.loads(capsys.readouterr().out)["facts"]
    assert {name: facts[name] for name in ("device", "dtype", "provider")} == {
        "device": "cpu",
        "dtype": "bfloat16",
        "provider": "cpu",
    }
    assert json.loads((tmp_path / "out" / "sampling.json").read_text())["dtype"] == "bfloat16"
