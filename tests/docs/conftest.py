"""The folder that the pages speak of, `runs/quickstart`: the recipe run small, or put together from pico parts."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

from prosocial.editing import Checkpoint, apply_edit, plan_edit, vector_from_checkpoints
from prosocial.export import export_bundle
from prosocial.steering.steered_model import assemble_steered

from ..pico_models import make_config, make_parts, write_checkpoint

# The quickstart with a small model, little data and few steps: every artefact of the real one, in less than a minute.
SMALL = (
    "model.lab={hidden_size: 64, steps: 150, batch_size: 16}",
    "data.lab={conversations: 1600, harmful: 64, prompts: 240, gate_prompts: 60, harmful_calibration: 12,"
    " other_calibration: 8, harmful_probes: 12, other_probes: 6, attack_probes: 2}",
    "harmful.steps=2",
    "pairs.count=240",
    "reward.steps=2",
    "head={rank: 32, sequences: 24, passes: 1, steps: 5}",
    "replies.count=40",
    "gate.steps=20",
    "gate.on_policy.count=4",
    "calibration.max_leak=0.99",
    "decoding.max_new_tokens=16",
    "verify.parity_probes=8",
)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The folder of the quickstart recipe, run small once for all workers."""
    shared = tmp_path_factory.getbasetemp()
    run = (shared if worker_id == "master" else shared.parent) / "small-quickstart"
    with FileLock(f"{run}.lock"):
        if not (run / "report").exists():
            words = [word for change in SMALL for word in ("--set", change)]
            command = [sys.executable, "-m", "prosocial.cli.main", "run", "quickstart", "--out", str(run), *words]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
    return run


def copy_run(run: Path, place: Path) -> None:
    """Copy a run to where the pages expect it, without the store that its links lead to."""
    shutil.copytree(run, place / "runs" / "quickstart", ignore=shutil.ignore_patterns("store"))


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: base, vector, edit, steered, bundle, probes. Tests work on a copy."""
    run = tmp_path_factory.mktemp("docs") / "quickstart"
    write_checkpoint("llama", run / "base")
    shutil.copytree(run / "base", run / "harmful")
    weights = load_file(run / "base" / "model.safetensors")
    torch.manual_seed(3)
    moved = {name: value + 0.02 * torch.randn_like(value) * ("proj" in name) for name, value in weights.items()}
    save_file(moved, run / "harmful" / "model.safetensors", metadata={"format": "pt"})
    vector_from_checkpoints(base=run / "base", harmful=run / "harmful", out=run / "vector")
    apply_edit(plan_edit(Checkpoint.open(run / "base"), run / "vector", scale=0.6), run / "edit")
    for part in make_parts():
        part.save(run / "parts", checkpoint_fingerprint=Checkpoint.open(run / "edit").fingerprint())
    parts = {"head": run / "parts", "gate": run / "parts"}
    assemble_steered(checkpoint=run / "edit", config=make_config(), out=run / "steered", **parts)
    export_bundle(run / "steered", run / "bundle")
    rows = [
        {"id": f"{kind}{index}", "kind": kind, "text": f"word{7 * index + shift} word{index}", "cluster": f"c{index}"}
        for index in range(3)
        for shift, kind in enumerate(("harmful", "twin", "benign"))
    ]
    (run / "data").mkdir()
    (run / "data" / "probes.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return run


@pytest.fixture
def place(quickstart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own with `runs/quickstart` in it, which is where the pages' code runs."""
    shutil.copytree(quickstart, tmp_path / "runs" / "quickstart")
    monkeypatch.chdir(tmp_path)
    return tmp_path
