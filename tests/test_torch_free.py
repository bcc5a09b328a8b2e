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

from .roots import ROOT, ROOTS, TOP

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
    "gguf",
    "optuna",
    "inspect_ai",
)
# What must stay light, whatever is written in it later: a folder stands for every module in it.
LIGHT = (
    TOP,
    "core",
    "editing",
    "steering/audit_log",
    "steering/authorisation",
    "steering/configs",
    "steering/decoding",
    "training/gate/replies.py",
    "training/reward/attributes.py",
    "training/reward/pairs.py",
    "training/reward/settings.py",
    "training/tuning/settings.py",
    "export/bundle_files",
    "export/hub",
    "export/runtime",
    "evaluation/comparison",
    "evaluation/cosa_score",
    "evaluation/gate",
    "evaluation/judges",
    "evaluation/outcomes",
    "evaluation/probes",
    "evaluation/report",
    "evaluation/sampling",
    "evaluation/statistics",
    "evaluation/steering_scores",
    "verify",
    "recipes/inspection",
    "recipes/labelling",
    "recipes/reading",
    "recipes/workflow",
    "cli",
)
# The modules in those folders that compute with torch.
EXCEPT = (
    "core/batches.py",
    "editing/checkpoints/model.py",
    "editing/checkpoints/modules.py",
    "editing/checkpoints/renaming.py",
    "editing/checkpoints/tensors.py",
    "editing/edits/adapter.py",
    "editing/edits/in_memory.py",
    "editing/vectors/input_moments.py",
    "editing/vectors/making/adapter_parameters.py",
    "editing/vectors/making/adapter_source.py",
    "editing/vectors/statistics.py",
    "evaluation/gate/calibrating.py",
    "verify/parity/steered_margins.py",
    "verify/parity/torch_points.py",
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
    files = [path for folder in (TOP, *ROOTS) for path in (ROOT / folder).rglob("*.py")]
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
    home, exceptions = ROOT / place, [ROOT / other for other in EXCEPT]
    names = [name for name, path in modules().items() if home in (path, *path.parents) and path not in exceptions]

    assert names, f"{place} should exist: correct the list when it moves"
    assert {name: sorted(heavy_imports(name)) for name in names if heavy_imports(name)} == {}


def test_the_lists_are_true() -> None:
    """Every root folder has something that must stay light, and every exception needs to be one."""
    assert {place.split("/")[0] for place in LIGHT} == {TOP, *ROOTS}
    assert [place for place in EXCEPT if not heavy_imports(_dotted(ROOT / place))] == []


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


def test_a_low_rank_vector_is_subtracted_and_audited_with_the_extras_blocked(tmp_path: Path) -> None:
    """The bytes are those of the same edit with torch installed, in memory and on disk."""
    from prosocial.editing import apply_edit, make_vector, plan_edit
    from prosocial.editing.checkpoints import Checkpoint

    generator = np.random.default_rng(0)
    base = {f"layers.{layer}.w": generator.standard_normal((40, 24), np.float32) for layer in range(2)}
    harmful = {name: values + np.float32(0.1) * values**2 for name, values in base.items()}
    for folder, tensors in (("base", base), ("harmful", harmful)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
        save_file(tensors, tmp_path / folder / "model.safetensors")
    vector = make_vector(tmp_path / "harmful", tmp_path / "vector", base=tmp_path / "base", method="low_rank", rank=3)
    assert vector.low_rank("layers.0.w") is not None
    apply_edit(plan_edit(Checkpoint.open(tmp_path / "base"), tmp_path / "vector", scale=0.7), tmp_path / "expected")
    edit = ["edit", "base", "--subtract", "vector", "--scale", "0.7", "-o", "out"]
    audit = ["audit", "out", "--base", "base", "--vector", "vector"]
    program = f"{BLOCK}\nfrom prosocial.cli.main import main\nsys.exit(main({edit!r}) or main({audit!r}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr[-2000:]
    assert "verdict: CONFIRMED" in done.stdout
    assert (tmp_path / "out/model.safetensors").read_bytes() == (tmp_path / "expected/model.safetensors").read_bytes()
    product = vector.delta("layers.0.w").numpy()
    down, up = vector.low_rank("layers.0.w").down, vector.low_rank("layers.0.w").up
    assert np.array_equal(product, (up @ down).numpy())  # torch's own product, whose bits records of 0.1.0 have


def _dotted(path: Path) -> str:
    folder, *inner = path.relative_to(ROOT).with_suffix("").parts
    words = ["prosocial", *([] if folder == TOP else [folder]), *inner]
    return ".".join(words[:-1] if words[-1] == "__init__" else words)
