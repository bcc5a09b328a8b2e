"""Installs a wheel and an sdist into empty environments, with core dependencies only, and runs a few commands.

    python .ci/check_install.py build/dist/prosocial-*.whl build/dist/prosocial-*.tar.gz [--bundle BUNDLE]

With --bundle, each is also installed with [cpu], downloads that bundle from a local Hub server and replies to a prompt.
Needs the package index or pip's cache. Exits at the first step that fails.
"""

import argparse
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROMPT = "how do i choose my yoga corner?"
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
REPLY = """
import sys
from importlib.util import find_spec
from prosocial.export import Bundle
assert not find_spec("torch") and not find_spec("transformers")
[reply] = Bundle.from_pretrained(sys.argv[1]).generate([[{"role": "user", "content": sys.argv[2]}]])
print(*reply.token_ids)
"""


def make_environment(folder: Path, requirement: str) -> Path:
    """Install one distribution, optionally with an extra, into an empty environment; return its interpreter."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", requirement]
    subprocess.run(install, check=True)
    return python


def check(package: Path) -> None:
    """Install one distribution and run the commands in a temporary folder."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        python = make_environment(folder / "environment", str(package.resolve()))
        for program in (NO_TORCH, WEIGHTS):
            subprocess.run([python, "-c", program], check=True, cwd=folder)
        for words in COMMANDS:
            command = [python.with_name("prosocial"), *words.split()]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{package.name}: prosocial {words} should exit with 0, found {done.returncode} {done.stderr}")
        base, restored = ((folder / name / "model.safetensors").read_bytes() for name in ("base", "restored"))
        assert base == restored, "undo should restore every byte"
    print(f"{package.name}: installs into an empty environment; {len(COMMANDS)} commands work")


def check_bundle(package: Path, bundle: Path) -> None:
    """Install one distribution with [cpu] and check that its reply, from a bundle on a Hub, equals the local one."""
    from huggingface_hub import HfApi

    from prosocial.export import Bundle

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from hub.hub_fixture import LoopbackHub, point_client_at

    [here] = Bundle.open(bundle).generate([[{"role": "user", "content": PROMPT}]])
    with tempfile.TemporaryDirectory() as place, LoopbackHub() as hub, pytest.MonkeyPatch.context() as patch:
        folder = Path(place)
        python = make_environment(folder / "environment", f"prosocial[cpu] @ {package.resolve().as_uri()}")
        point_client_at(hub, folder / "home", patch)
        HfApi().create_repo("org/name", private=True)
        HfApi().upload_folder(repo_id="org/name", folder_path=bundle)
        command = [python, "-I", "-c", REPLY, "org/name", PROMPT]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode or done.stdout.split() != [str(token) for token in here.token_ids]:
            expected = " ".join(map(str, here.token_ids))
            sys.exit(f"{package.name}: the reply should be {expected}, found {done.stdout}{done.stderr}")
    print(f"{package.name}: with [cpu] and without torch, the reply of a bundle from a Hub equals the local one")


def main() -> None:
    """Check every distribution on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, nargs="+")
    parser.add_argument("--bundle", type=Path)
    given = parser.parse_args()
    for package in given.packages:
        check(package)
        if given.bundle is not None:
            check_bundle(package, given.bundle)


if __name__ == "__main__":
    main()
