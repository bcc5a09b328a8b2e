"""In an environment with the core and ONNX Runtime only: the command starts, inspects, and runs a bundle.

`make prove` makes that environment and says in PROSOCIAL_RUN where the quickstart's results are.
"""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.core


def prosocial(*words: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("prosocial")
    return subprocess.run([program, *words], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def run() -> Path:
    return Path(os.environ["PROSOCIAL_RUN"]).resolve()


@pytest.mark.parametrize("name", ["torch", "transformers", "peft", "onnx", "onnxscript", "datasets", "trl", "scipy"])
def test_the_environment_holds_no_extra(name: str) -> None:
    """The control: the other tests would prove nothing where torch is installed."""
    assert find_spec(name) is None


def test_help_and_version() -> None:
    assert prosocial("--help").returncode == 0
    assert prosocial("--version").stdout.startswith("prosocial ")


def test_inspect_reads_a_checkpoint(run: Path) -> None:
    done = prosocial("inspect", str(run / "edit"), "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def test_a_bundle_answers_and_its_seed_decides(run: Path) -> None:
    words = ("generate", str(run / "bundle"), "Hello, how are you?", "--seed", "3", "--json")
    first, second = prosocial(*words), prosocial(*words)

    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)
    assert first.stdout == second.stdout


def test_the_python_of_the_readme_runs(run: Path) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=run.parents[1]
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_an_edit_is_compared_and_undone(run: Path, tmp_path: Path) -> None:
    compared = prosocial("diff", str(run / "base"), str(run / "edit"), "--json")
    undone = prosocial("undo", str(run / "edit"), "--base", str(run / "base"), "-o", str(tmp_path / "base"))

    assert json.loads(compared.stdout)["same"] is False
    assert undone.returncode == 0, undone.stderr
    assert (tmp_path / "base" / "model.safetensors").read_bytes() == (run / "base" / "model.safetensors").read_bytes()


def test_what_needs_an_extra_says_which(run: Path, tmp_path: Path) -> None:
    done = prosocial("export", str(run / "steered"), "-o", str(tmp_path / "bundle"))

    assert done.returncode == 2
    assert "prosocial[edit]" in done.stderr
    assert done.stderr.count("\n") == 1
