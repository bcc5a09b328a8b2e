"""The runtime, inspection, plans and the command line start where nothing but the core is installed."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).parents[1]
FOLDERS = ("core", "editing", "steering", "training", "export", "evaluation", "verify", "recipes", "cli")
# Everything that only an extra brings.
HEAVY = (
    "torch",
    "transformers",
    "peft",
    "onnx",
    "onnxscript",
    "onnx_ir",
    "trl",
    "torchjd",
    "datasets",
    "accelerate",
    "scipy",
    "onnxruntime",
    "optuna",
    "inspect_ai",
)
# What must stay light, whatever is written in it later: a folder stands for every module in it.
LIGHT = (
    "cli",
    "core/appended_rows.py",
    "core/chat.py",
    "editing/checkpoints/folder.py",
    "editing/checkpoints/header.py",
    "editing/checkpoints/hub.py",
    "core/cores.py",
    "editing/depth.py",
    "editing/edits/apply.py",
    "editing/edits/arithmetic.py",
    "editing/edits/deltas.py",
    "editing/edits/difference.py",
    "editing/edits/inspection.py",
    "editing/edits/patch.py",
    "editing/edits/plan.py",
    "editing/edits/realised.py",
    "editing/edits/record.py",
    "editing/edits/rounding.py",
    "editing/edits/scaling.py",
    "editing/edits/tensor_edit.py",
    "editing/edits/undo.py",
    "editing/edits/writing.py",
    "core/equal_lengths.py",
    "core/errors.py",
    "core/files.py",
    "editing/checkpoints/fingerprint.py",
    "editing/kernels",
    "core/locking.py",
    "core/noise.py",
    "core/progress.py",
    "core/protocols.py",
    "core/shared_files.py",
    "editing/vectors/making/build.py",
    "editing/vectors/making/checkpoint_source.py",
    "editing/vectors/folder.py",
    "editing/vectors/methods",
    "editing/vectors/making/parents.py",
    "editing/vectors/vector.py",
    "steering/configs",
    "steering/decoding/config.py",
    "export/runtime/bundle.py",
    "steering/decoding/loop.py",
    "steering/decoding/draft.py",
    "export/hub",
    "export/bundle_files/manifest.py",
    "steering/decoding/phrases.py",
    "steering/decoding/prefix.py",
    "steering/decoding/reply.py",
    "steering/decoding/reply_text.py",
    "steering/decoding/requests.py",
    "steering/decoding/sampling.py",
    "core/signing",
    "steering/decoding/streaming.py",
    "recipes/workflow/code_version.py",
    "recipes/workflow/definitions.py",
    "recipes/workflow/source_tree.py",
    "recipes/reading/loading.py",
    "recipes/reading/overrides.py",
    "recipes/workflow/plan.py",
    "recipes/workflow/progress.py",
    "recipes/workflow/runner.py",
    "recipes/workflow/stage.py",
    "recipes/workflow/store.py",
    "verify/audit",
    "evaluation/probes/probe.py",
    "verify/signing",
    "evaluation/statistics",
)
BLOCK = f"""
import importlib, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked: it is in no core install", name=name)
sys.meta_path.insert(0, Blocker())
"""


def modules() -> dict[str, Path]:
    """Return the file of every module of the package by dotted name."""
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    return {_dotted(path): path for path in sorted(files)}


def imports_at_import(path: Path) -> Iterator[str]:
    """Yield the absolute dotted names that importing a file imports: not those in functions or for type checkers."""
    package = _dotted(path) if path.name == "__init__.py" else _dotted(path).rpartition(".")[0]
    for node in _executed(ast.parse(path.read_text(encoding="utf-8")).body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _executed(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from _executed(node.orelse)
            continue
        yield node
        for field in ("body", "orelse", "finalbody"):
            yield from _executed(getattr(node, field, []))


@cache
def heavy_imports(name: str) -> frozenset[str]:
    """Return what a module imports from the extras when it is imported, through any module of the package."""
    known, seen, heavy = modules(), set(), set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        if current.split(".")[0] in HEAVY:
            heavy.add(current.split(".")[0])
        elif current in known:
            waiting += imports_at_import(known[current])
    return frozenset(heavy)


def light_modules() -> list[str]:
    """Return the modules that import nothing heavy."""
    return [name for name in modules() if not heavy_imports(name)]


def test_the_derivation_sees_through_the_package() -> None:
    """The control: torch modules are found as such, or else every test below would pass on nothing."""
    heavy = {name: heavy_imports(name) for name in modules() if heavy_imports(name)}

    assert "torch" in heavy["prosocial.steering.gate"]
    assert "torch" in heavy["prosocial.steering.head"]


@pytest.mark.parametrize("place", LIGHT)
def test_what_must_stay_light_imports_nothing_heavy(place: str) -> None:
    paths = [path for path in modules().values() if path == ROOT / place or (ROOT / place) in path.parents]

    assert paths, f"{place} should exist: correct the list when it moves"
    assert {_dotted(path): sorted(heavy_imports(_dotted(path))) for path in paths if heavy_imports(_dotted(path))} == {}


def test_importing_a_package_imports_nothing_heavy() -> None:
    packages = [name for name, path in modules().items() if path.name == "__init__.py"]

    assert {name: sorted(heavy_imports(name)) for name in packages if heavy_imports(name)} == {}


def test_every_light_module_imports_with_the_extras_blocked() -> None:
    """One process imports them all, so that what Python really does is tested and not only what the source says."""
    names = light_modules()
    program = f"{BLOCK}\nfor name in {names!r}:\n    importlib.import_module(name)\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["run", "--help"], ["inspect", "--help"], ["vector", "--methods"]]
)
def test_the_command_line_starts_with_the_extras_blocked(words: list[str]) -> None:
    program = f"{BLOCK}\nfrom prosocial.cli.main import main\nsys.exit(main({words!r}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr[-2000:]
    assert "prosocial" in done.stdout


@pytest.mark.parametrize("method", ["plain", "top_k --density 0.2", "ties --density 0.2", "lines"])
def test_a_vector_of_checkpoints_is_made_and_subtracted_with_the_extras_blocked(method: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    base = {f"layers.{layer}.w": generator.standard_normal((8, 6), np.float32) for layer in range(3)}
    harmful = {name: values + np.float32(0.1) * values**2 for name, values in base.items()}
    for folder, tensors in (("base", base), ("harmful", harmful)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
        save_file(tensors, tmp_path / folder / "model.safetensors")
    vector = ["vector", "--base", "base", "--harmful", "harmful", "--method", *method.split(), "-o", "vector"]
    edit = ["edit", "base", "--subtract", "vector", "--scale", "1", "-o", "out"]
    program = f"{BLOCK}\nfrom prosocial.cli.main import main\nsys.exit(main({vector!r}) or main({edit!r}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr[-2000:]
    moved = load_file(tmp_path / "out" / "model.safetensors")
    assert any((moved[name] != values).any() for name, values in base.items())
    assert all((moved[name] - values <= 0).all() for name, values in base.items())  # the vector is positive throughout


def _dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("prosocial", *(parts[:-1] if parts[-1] == "__init__" else parts)))
