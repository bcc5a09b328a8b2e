"""The first word of an answer comes at once: what only looks, refuses or plans imports no library of models."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "onnxruntime", "scipy", "sklearn", "peft", "trl", "onnx", "datasets", "pandas")

QUICK = {
    "version": ["--version"],
    "help": ["--help"],
    "help of a command": ["compare", "--help"],
    "help of a group": ["config", "--help"],
    "unknown command": ["inspekt"],
    "unknown recipe": ["run", "nonsense"],
    "dry run": ["run", "quickstart", "--dry-run", "--out", "none"],
    "export of nothing": ["export", "WRONG", "-o", "none"],
    "generate without a bundle": ["generate", "WRONG", "hello"],
    "chat without a bundle": ["chat", "WRONG"],
    "verify without a bundle": ["verify", "WRONG", "--reference", "none"],
    "edit of nothing": ["edit", "./WRONG", "--subtract", "v", "--scale", "1", "-o", "none"],
    "audit of nothing": ["audit", "./WRONG"],
    "inspect of nothing": ["inspect", "./WRONG"],
    "compare of no probes": ["compare", "a", "b", "--probes", "no.jsonl"],
    "check of no config": ["config", "check", "no.json", "--bundle", "no"],
}
PROGRAM = """
import sys
from prosocial.cli.main import main
main(sys.argv[1:])
print("\\nloaded:", *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def loaded(words: list[str], place: Path, **environment: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=place,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Traceback" not in done.stderr
    return set(done.stderr.rpartition("loaded:")[2].split())


@pytest.mark.parametrize("words", QUICK.values(), ids=QUICK)
def test_nothing_heavy_is_imported(words: list[str], tmp_path: Path) -> None:
    modules = loaded(words, tmp_path)

    assert "typer" in modules  # the control
    assert modules & set(HEAVY) == set()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [("prosocial ed", "edit"), ("prosocial export --precision ", "int8"), ("prosocial config ", "sign")],
)
def test_the_shell_completes(words: str, expected: str, tmp_path: Path) -> None:
    environment = {"_PROSOCIAL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(
        [sys.executable, "-m", "prosocial.cli.main"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert expected in done.stdout.split()
