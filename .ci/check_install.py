"""Installs a wheel and an sdist, each into an empty environment with the core alone, and lets it do a little work.

    python .ci/check_install.py build/dist/prosocial-*.whl build/dist/prosocial-*.tar.gz [--bundle BUNDLE]

With a bundle each is also installed with [cpu], where it fetches that bundle from a Hub on this machine and replies.
Needs the package index, or pip's cache. Fails at the first step that does not do what it should.
"""

import argparse
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ASKED = "how do i choose my yoga corner?"
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
    """Install one distribution, perhaps with an extra, into an empty environment; return its interpreter."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", requirement]
    subprocess.run(install, check=True)
    return python


def check(package: Path) -> None:
    """Install one distribution and run the commands in a folder of their own."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        python = make_environment(folder / "environment", str(package.resolve()))
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


def check_bundle(package: Path, bundle: Path) -> None:
    """Install one distribution with [cpu]; it fetches a bundle from a Hub and replies as this environment does."""
    from huggingface_hub import HfApi

    from prosocial.export import Bundle

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from hub.hub_fixture import LoopbackHub, point_client_at

    [here] = Bundle.open(bundle).generate([[{"role": "user", "content": ASKED}]])
    with tempfile.TemporaryDirectory() as place, LoopbackHub() as hub, pytest.MonkeyPatch.context() as patch:
        folder = Path(place)
        python = make_environment(folder / "environment", f"prosocial[cpu] @ {package.resolve().as_uri()}")
        point_client_at(hub, folder / "home", patch)
        HfApi().create_repo("org/name", private=True)
        HfApi().upload_folder(repo_id="org/name", folder_path=bundle)
        command = [python, "-I", "-c", REPLY, "org/name", ASKED]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode or done.stdout.split() != [str(token) for token in here.token_ids]:
            sys.exit(f"{package.name}: should reply as here, {here.token_ids}; found {done.stdout}{done.stderr}")
    print(f"{package.name}: with [cpu] and without torch, a bundle from a Hub replies as it does here")


def main() -> None:
    """Check every distribution that is given."""
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
