"""The folder that the pages speak of: `runs/quickstart` as the quickstart leaves it, of a pico model."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from prosocial.editing import Checkpoint, apply_edit, plan_edit, vector_from_checkpoints
from prosocial.export import export_bundle
from prosocial.steering.steered_model import assemble_steered

from ..pico_models import make_config, make_parts, write_checkpoint


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
