"""The commands about weights: one JSON object or a table, and no torch before something is written."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from prosocial.cli import edit, weights
from prosocial.core.errors import ArtefactError, InputError
from prosocial.editing.checkpoints.fingerprint import fingerprint
from prosocial.editing.edits import describe_folder, read_record

from ..weights_helpers import MATRIX, moved, some_tensors, write_checkpoint

APP = typer.Typer()
for command in (weights.inspect, weights.vector, edit.edit, edit.undo):
    APP.command(command.__name__)(command)


def run(*words: object) -> str:
    result = CliRunner().invoke(APP, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def run_json(*words: object) -> dict[str, Any]:
    value = json.loads(run(*words, "--json"))
    assert isinstance(value, dict)
    return value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    base = some_tensors(dtype=torch.bfloat16)
    write_checkpoint(tmp_path / "base", base)
    write_checkpoint(tmp_path / "harmful", moved(base))
    return tmp_path


def test_from_two_checkpoints_to_an_edited_one(folder: Path) -> None:
    made = run_json("vector", "--base", folder / "base", "--harmful", folder / "harmful", "-o", folder / "vector")
    words = ("edit", folder / "base", "--subtract", folder / "vector", "--scale", "0.6")
    plan = run_json(*words, "--dry-run")
    record = run_json(*words, "-o", folder / "out")
    description = run_json("inspect", folder / "out")

    assert made["kind"] == "harm vector" and made["base_fingerprint"] == fingerprint(folder / "base")
    assert plan["n_edited"] == 4
    assert record == read_record(folder / "out").to_json()
    assert description["edit"]["agrees"] is True
    assert description["fingerprint"] == record["result"]["fingerprint"]


def test_tables_for_people(folder: Path) -> None:
    run(
        "vector",
        "--base",
        folder / "base",
        "--harmful",
        folder / "harmful",
        "-o",
        folder / "vector",
        "--method",
        "top_k",
        "--density",
        "0.5",
    )
    words = ("edit", folder / "base", "--subtract", folder / "vector", "--scale", f"{MATRIX}=0.5")

    assert "n_edited" in run(*words, "--dry-run") and not (folder / "out").exists()
    assert "realised gain, least" in run(*words, "-o", folder / "out")
    assert "checkpoint" in run("inspect", folder / "out", "--no-fingerprint")


def test_an_edit_without_a_destination_or_onto_something_is_refused(folder: Path) -> None:
    run("vector", "--base", folder / "base", "--harmful", folder / "harmful", "-o", folder / "vector")
    words = ("edit", folder / "base", "--subtract", folder / "vector", "--scale", "0.6")

    with pytest.raises(InputError, match="-o OUT, or --dry-run"):
        run(*words)
    with pytest.raises(InputError, match="should not exist yet"):
        run(*words, "--dry-run", "-o", folder / "base")


def test_an_edited_checkpoint_that_was_changed_afterwards_is_seen(folder: Path) -> None:
    run("vector", "--base", folder / "base", "--harmful", folder / "harmful", "-o", folder / "vector")
    run("edit", folder / "base", "--subtract", folder / "vector", "--scale", "0.6", "-o", folder / "out")
    file = folder / "out" / "model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)

    assert run_json("inspect", folder / "out")["edit"]["agrees"] is False
    assert run_json("inspect", folder / "out", "--no-fingerprint")["edit"]["agrees"] is None


def test_an_adapter_is_told_and_used(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "base", some_tensors())
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    from safetensors.torch import save_file

    key = f"base_model.model.{MATRIX.removesuffix('.weight')}"
    factors = {f"{key}.lora_A.weight": torch.randn(2, 6), f"{key}.lora_B.weight": torch.randn(4, 2)}
    save_file(factors, adapter / "adapter_model.safetensors")

    assert run_json("inspect", adapter)["rank"] == 2
    made = run_json("vector", "--base", tmp_path / "base", "--harmful", adapter, "-o", tmp_path / "v")
    assert (made["storage"], made["n_tensors"]) == ("low_rank", 1)


def test_a_folder_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="none of these files"):
        describe_folder(tmp_path)


def test_inspecting_and_planning_do_not_import_torch(folder: Path) -> None:
    run("vector", "--base", folder / "base", "--harmful", folder / "harmful", "-o", folder / "vector")
    program = f"""
import sys
sys.modules["torch"] = None
from prosocial.cli import edit, weights
from pathlib import Path
folder = Path({str(folder)!r})
weights.inspect(str(folder / "base"))
weights.inspect(str(folder / "vector"), as_json=True)
edit.edit(str(folder / "base"), folder / "vector", ["0.6"], dry_run=True, out=folder / "out")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "n_edited" in done.stdout


def test_an_edit_is_undone_from_its_base_and_from_its_patch(folder: Path) -> None:
    run("vector", "--base", folder / "base", "--harmful", folder / "harmful", "-o", folder / "vector")
    words = ("edit", folder / "base", "--subtract", folder / "vector", "-o", folder / "out", "--threads", 2)
    run(*words, "--ramp", "0.2:0.8", "--rounding", "stochastic", "--seed", 3, "--patch", folder / "p")
    from_base = run_json("undo", folder / "out", "--base", folder / "base", "-o", folder / "a")
    from_patch = run_json("undo", folder / "out", "--patch", folder / "p", "-o", folder / "b")

    assert from_base["fingerprint"] == from_patch["fingerprint"] == fingerprint(folder / "base")
    for name in ("a", "b"):
        assert (folder / name / "model.safetensors").read_bytes() == (
            folder / "base" / "model.safetensors"
        ).read_bytes()
    assert {row.pattern for row in read_record(folder / "out").terms[0].coefficients} == {
        "ramp 0.2:0.8, layer 0",
        "ramp 0.2:0.8, outside the layers",
    }


def test_an_edit_takes_exactly_one_form_of_scale(folder: Path) -> None:
    run("vector", "--base", folder / "base", "--harmful", folder / "harmful", "-o", folder / "vector")
    (folder / "scale.yaml").write_text(f"{MATRIX}: 0.5")
    words = ("edit", folder / "base", "--subtract", folder / "vector", "--dry-run")

    assert run_json(*words, "--scale-file", folder / "scale.yaml")["n_edited"] == 1
    for wrong in ((), ("--scale", "0.5", "--ramp", "0:1"), ("--ramp", "0:1", "--scale-file", folder / "scale.yaml")):
        with pytest.raises(InputError, match="one of --scale, --ramp and --scale-file"):
            run(*words, *wrong)


def test_an_edit_that_rounding_swallows_is_warned_of(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    base = {MATRIX: torch.randn(64, 64).bfloat16()}
    write_checkpoint(folder / "b", base)
    write_checkpoint(folder / "h", {MATRIX: base[MATRIX].float() + 0.001 * torch.randn(64, 64)})
    run("vector", "--base", folder / "b", "--harmful", folder / "h", "-o", folder / "v")
    edit.edit(str(folder / "b"), folder / "v", ["0.5"], out=folder / "small")
    assert f"most in {MATRIX}" in capfd.readouterr().err
    edit.edit(str(folder / "b"), folder / "v", ["0.5"], out=folder / "kept", rounding="stochastic")
    assert "warning" not in capfd.readouterr().err
