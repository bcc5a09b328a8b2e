"""Installs a wheel and an sdist, each into an empty environment with the core alone, and lets it do a little work.

    python .ci/check_install.py build/dist/prosocial-*.whl build/dist/prosocial-*.tar.gz

Needs the package index, or pip's cache. Fails at the first step that does not do what it should.
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
WEIGHTS = """
import json, numpy
from pathlib import Path
from safetensors.numpy import save_file
base = {f"layers.{layer}.w": numpy.full((8, 6), layer + 1, numpy.float32) for layer in range(3)}
for folder, step in (("base", 0), ("harmful", 0.5)):
    Path(folder).mkdir()
    Path(folder, "config.json").write_text(json.dumps({"model_type": "llama"}))
    save_file({name: value + numpy.float32(step) for name, value in base.items()}, f"{folder}/model.safetensors")
"""
COMMANDS = (
    "--version",
    "inspect base",
    "vector --base base --harmful harmful -o vector",
    "edit base --subtract vector --scale 1 -o edited",
    "audit edited --base base --vector vector",
    "undo edited --base base -o restored",
    "diff base restored",
)
NO_TORCH = "from importlib.util import find_spec; assert not find_spec('torch') and not find_spec('onnxruntime')"


def check(package: Path) -> None:
    """Install one distribution and run the commands in a folder of their own."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        venv.create(folder / "environment", with_pip=True)
        python = folder / "environment" / "bin" / "python"
        install = [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", package.resolve()]
        subprocess.run(install, check=True)
        for program in (NO_TORCH, WEIGHTS):
            subprocess.run([python, "-c", program], check=True, cwd=folder)
        for words in COMMANDS:
            command = [python.with_name("prosocial"), *words.split()]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{package.name}: prosocial {words} should end with 0, found {done.returncode}: {done.stderr}")
        kept = [(folder / name / "model.safetensors").read_bytes() for name in ("base", "restored")]
        assert kept[0] == kept[1], "undo should restore every byte"
    print(f"{package.name}: installs into an empty environment; {len(COMMANDS)} commands do their work")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("give distributions: python .ci/check_install.py build/dist/prosocial-*")
    for name in sys.argv[1:]:
        check(Path(name))
