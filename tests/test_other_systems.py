"""Edit, undo, audit and inspect do on Windows and macOS what they do on Linux, as far as the rules can tell."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from .other_systems import MISSING_NAMES, prelude
from .test_torch_free import light_modules

SYSTEMS = ["windows", "macos"]
MAIN = "from prosocial.cli.main import main\n"
COMMANDS = [
    ["vector", "--base", "base", "--harmful", "harmful", "-o", "vector"],
    ["inspect", "base"],
    ["edit", "base", "--subtract", "vector", "--scale", r".*layers\.[01].*=0.5", "-o", "edited", "--patch", "patch"],
    ["edit", "base", "--subtract", "vector", "--scale", "0.5", "-o", "again", "--rounding", "stochastic"],
    ["undo", "edited", "-o", "from-base", "--base", "base"],
    ["undo", "edited", "-o", "from-patch", "--patch", "patch"],
    ["audit", "edited", "--base", "base", "--vector", "vector", "-o", "audit", "--json"],
]


def run(program: str, folder: Path, *, code: int = 0) -> str:
    """Run a program in a folder and return what it printed."""
    words = [sys.executable, "-W", "error::UserWarning", "-c", program]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def world(folder: Path) -> Path:
    """Write a base of three shards and a harmful model."""
    generator = np.random.default_rng(0)
    base = {f"layers.{layer}.w": generator.standard_normal((80, 60), np.float32) for layer in range(3)}
    for name, tensors in {"base": base, "harmful": {key: 1.1 * value for key, value in base.items()}}.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
        files = {key: f"model-{at}-of-3.safetensors" for at, key in enumerate(tensors, start=1)}
        for key, file in files.items():
            save_file({key: np.asarray(tensors[key], np.float32)}, folder / name / file)
        index = {"metadata": {}, "weight_map": files}
        (folder / name / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def digests(folder: Path) -> dict[str, str]:
    """Return the digest of every file by its path; the pages of an audit hold times, so they count by name only.

    Lock files are left out: on Windows filelock deletes them, which under the rules no open file lets it do.
    """
    return {
        path.relative_to(folder).as_posix(): ""
        if path.parent.name == "audit"
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def leftovers(folder: Path, system: str) -> list[str]:
    names = [path.name for path in folder.iterdir() if path.name.startswith(".")]
    return [name for name in names if not (system == "windows" and name.endswith(".lock"))]


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_rules_hold(system: str, tmp_path: Path) -> None:
    """The control of the tests below: what a system lacks is really gone, and Windows really refuses."""
    gone = f"import os\nassert not any(hasattr(os, name) for name in {sorted(MISSING_NAMES[system])!r})\n"
    refused = "stream = open('a', 'wb')\ntry:\n    os.replace('a', 'b')\nexcept PermissionError:\n    print('refused')"
    assert ("refused" in run(prelude(system) + gone + refused, tmp_path)) is (system == "windows")


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_light_module_imports(system: str, tmp_path: Path) -> None:
    run(
        prelude(system) + f"import importlib\nfor name in {light_modules()!r}:\n    importlib.import_module(name)",
        tmp_path,
    )


@pytest.mark.parametrize("system", SYSTEMS)
def test_weights_are_edited_undone_and_audited_to_the_same_bytes(system: str, tmp_path: Path) -> None:
    here, there = world(tmp_path / "here"), world(tmp_path / "there")
    commands = f"for words in {COMMANDS!r}:\n    assert main(words) == 0, words\n"
    run(MAIN + commands, here)
    run(prelude(system) + MAIN + commands, there)

    assert digests(there) == digests(here)
    assert digests(there / "from-patch").items() <= digests(there / "from-base").items()
    assert leftovers(there, system) == []


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_killed_edit_is_taken_up_and_one_process_writes_at_a_time(system: str, tmp_path: Path) -> None:
    folder = world(tmp_path / "world")
    run(MAIN + f"assert main({COMMANDS[0]!r}) == 0", folder)
    edit = ["edit", "base", "--subtract", "vector", "--scale", "0.5", "--threads", "1", "-o", "out"]
    stop = """
import os, subprocess
from pathlib import Path
from prosocial.editing.checkpoints.folder import Checkpoint
from prosocial.editing.edits.apply import apply_edit
from prosocial.editing.edits.plan import plan_edit
plan = plan_edit(Checkpoint.open(Path("base")), Path("vector"), scale=0.5)
def stop(done, size):
    other = subprocess.run([sys.executable, "-c", OTHER], capture_output=True, text=True)
    print(other.returncode, other.stderr, flush=True)
    os._exit(9)
apply_edit(plan, Path("out"), stop, threads=1)
"""
    other = prelude(system) + MAIN + f"sys.exit(main({edit!r}))"
    printed = run(prelude(system) + f"OTHER = {other!r}\n" + stop, folder, code=9)
    assert printed.startswith("2 ") and "one process at a time" in printed and "Traceback" not in printed
    (left,) = folder.glob(".out.*.partial")
    assert (left / ".written.jsonl").read_bytes().count(b"\n") >= 1
    run(other, folder)
    run(other.replace("'out'", "'whole'"), folder)

    assert digests(folder / "out") == digests(folder / "whole")
    assert leftovers(folder, system) == []
