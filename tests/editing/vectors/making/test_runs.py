"""Vectors of several harmful runs, and of saved vectors."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from safetensors.torch import save_file
from typer.testing import CliRunner

from prosocial.cli import edit, weights
from prosocial.core.errors import ArtefactError, FingerprintError, InputError, UnknownNameError
from prosocial.editing.checkpoints import Checkpoint
from prosocial.editing.checkpoints.fingerprint import fingerprint
from prosocial.editing.edits import apply_edit, plan_edit
from prosocial.editing.vectors import HarmVector, vector_from_checkpoints, vector_from_runs

from ....weights_helpers import MATRIX, moved, some_tensors, write_checkpoint

APP = typer.Typer()
APP.command("vector")(weights.vector)
APP.command("edit")(edit.edit)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A base, two harmful checkpoints and a harmful adapter."""
    base = some_tensors()
    write_checkpoint(tmp_path / "base", base)
    for run in (1, 2):
        write_checkpoint(tmp_path / f"run-{run}", moved(base, seed=run))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 1}))
    key, generator = f"base_model.model.{MATRIX.removesuffix('.weight')}", torch.Generator().manual_seed(5)
    factors = {
        f"{key}.lora_A.weight": torch.randn(1, 6, generator=generator),
        f"{key}.lora_B.weight": torch.randn(4, 1, generator=generator),
    }
    save_file(factors, adapter / "adapter_model.safetensors")
    return tmp_path


def make(folder: Path, *harmful: str, out: str = "vector", base: str | None = "base", **given: Any) -> HarmVector:
    return vector_from_runs(
        base=folder / base if base else None, harmful=[folder / each for each in harmful], out=folder / out, **given
    )


def test_the_vector_of_several_runs_is_their_mean_and_names_every_parent(folder: Path) -> None:
    made = make(folder, "run-1", "adapter", "run-2")
    base, runs = some_tensors(), [moved(some_tensors(), seed=run) for run in (1, 2)]
    adapter = vector_from_runs(base=folder / "base", harmful=[folder / "adapter"], out=folder / "a").delta(MATRIX)

    for name in made.names:
        deltas = [(run[name] - base[name]).double() for run in runs] + ([adapter.double()] if name == MATRIX else [])
        assert torch.allclose(made.delta(name).double(), sum(deltas, torch.zeros(())) / 3, atol=1e-7)
        assert made.summary.tensors[name].alignment == 1.0
    parents = made.summary.harmful_parents
    assert [parent.kind for parent in parents] == ["checkpoint", "adapter", "checkpoint"]
    assert [parents[at].fingerprint for at in (0, 2)] == [fingerprint(folder / f"run-{run}") for run in (1, 2)]
    assert made.summary.harmful_kind == "mixed" and made.harmful_fingerprint not in {p.fingerprint for p in parents}
    assert all((parent.relatedness.minimum or 0) > 0.5 for parent in parents)
    assert len(made.summary.tensors[MATRIX].harmful_blake3) == 3


def test_one_run_gives_what_the_functions_for_one_give(folder: Path) -> None:
    alone = vector_from_checkpoints(base=folder / "base", harmful=folder / "run-1", out=folder / "alone")
    made = make(folder, "run-1")

    assert made.stored.blake3() == alone.stored.blake3()
    assert made.summary == alone.summary


def test_negmerge_and_ties_see_each_run(folder: Path) -> None:
    deltas = [torch.stack([moved(some_tensors(), seed=run)[MATRIX] - some_tensors()[MATRIX]]) for run in (1, 2)]
    unanimous = make(folder, "run-1", "run-2", out="n", method="negmerge").delta(MATRIX) != 0
    merged = make(folder, "run-1", "run-2", out="t", method="ties", density=1.0).delta(MATRIX)
    larger = torch.where(deltas[0].abs() > deltas[1].abs(), *deltas)[0]

    assert torch.equal(unanimous, (deltas[0] * deltas[1] > 0)[0]) and not unanimous.all()
    assert torch.equal(merged[~unanimous], larger[~unanimous])


def test_an_edit_refuses_every_harmful_parent(folder: Path) -> None:
    make(folder, "run-1", "run-2", method="top_k", density=0.5)

    assert plan_edit(Checkpoint.open(folder / "base"), folder / "vector", scale=1.0).coefficients
    for run in (1, 2):
        with pytest.raises(ArtefactError, match="a harmful parent of the vector"):
            plan_edit(Checkpoint.open(folder / f"run-{run}"), folder / "vector", scale=1.0)


def test_a_saved_vector_is_shaped_as_its_parents_would_be(folder: Path) -> None:
    plain = make(folder, "run-1", "run-2", out="plain")
    direct = make(folder, "run-1", "run-2", out="direct", method="top_k", density=0.2)
    shaped = make(folder, "plain", base=None, method="top_k", density=0.2)

    assert shaped.stored.blake3() == direct.stored.blake3()
    assert shaped.summary.harmful_parents == direct.summary.harmful_parents
    assert [step.blake3 for step in shaped.summary.shaped_from] == [plain.stored.blake3()]
    for name, summary in shaped.summary.tensors.items():
        other = direct.summary.tensors[name]
        assert summary.harmful_blake3 == other.harmful_blake3 and summary.relatedness == other.relatedness
        assert summary.ratio == pytest.approx(other.ratio)
    again = make(folder, "vector", base="base", out="again", method="lines", alpha=0.5)
    assert [step.method for step in again.summary.shaped_from] == ["plain", "top_k"]


def test_a_saved_vector_that_a_method_could_turn_is_refused(folder: Path) -> None:
    plain = make(folder, "run-1", out="plain")
    make(folder, "run-1", out="first", method="low_rank", rank=1)
    make(folder, "run-2", out="trimmed", method="top_k", density=0.5)
    utility = {name: torch.ones_like(plain.delta(name)) for name in plain.names}

    for method, given, names in (
        ("top_k", {"density": 0.5}, ["first"]),
        ("project", {"utility": utility}, ["trimmed"]),
        ("plain", {}, ["first"]),
        ("top_k", {"density": 0.5}, ["plain", "trimmed"]),
    ):
        with pytest.raises(InputError, match="whose direction it could reverse"):
            make(folder, *names, method=method, **given)
    assert make(folder, "plain", method="project", utility=utility).names


def test_runs_that_do_not_belong_together_are_refused_and_nothing_is_left(folder: Path) -> None:
    other = some_tensors(seed=9)
    write_checkpoint(folder / "other-base", other)
    write_checkpoint(folder / "other-run", moved(other))
    vector_from_checkpoints(base=folder / "other-base", harmful=folder / "other-run", out=folder / "other")
    before = sorted(path.name for path in folder.iterdir())

    for harmful, base, error, message in (
        ([], "base", InputError, "at least one harmful run"),
        (["run-1", "run-1"], "base", InputError, "one is given twice"),
        (["run-1"], None, InputError, "give --base"),
        (["run-1", "other-run"], "base", InputError, "should be a fine-tune of the base"),
        (["run-1", "other"], "base", FingerprintError, "the base of harmful run 2"),
        (["other"], "base", FingerprintError, "the base given"),
    ):
        with pytest.raises(error, match=message):
            make(folder, *harmful, base=base)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_description_of_one_parent_from_before_is_read(folder: Path) -> None:
    made = make(folder, "run-1")
    path = folder / "vector" / "vector.json"
    value = json.loads(path.read_text())
    for key in ("harmful_parents", "shaped_from"):
        del value[key]
    for summary in value["tensors"].values():
        del summary["alignment"]
        (summary["harmful_blake3"],) = summary["harmful_blake3"]
    path.write_text(json.dumps(value))
    old = HarmVector.open(folder / "vector")

    assert old.summary.harmful_digests == made.summary.harmful_digests
    with pytest.raises(ArtefactError, match="harmful parent"):
        plan_edit(Checkpoint.open(folder / "run-1"), folder / "vector", scale=1.0)
    assert make(folder, "vector", out="shaped", method="top_k", density=0.5).summary.harmful_parents == (
        made.summary.harmful_parents
    )


def test_the_command_takes_runs_methods_and_settings(folder: Path) -> None:
    def run(*words: object, code: int = 0) -> str:
        result = CliRunner().invoke(APP, [str(word) for word in words], catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result.output

    two = ("--harmful", folder / "run-1", "--harmful", folder / "run-2")
    words = ("vector", "--base", folder / "base", *two, "--method", "ties", "--set", "density=0.2")
    made = json.loads(run(*words, "-o", folder / "ties", "--json"))
    reshaped = ("vector", "--harmful", folder / "plain", "--method", "della", "--set", "density=0.5", "--set", "seed=3")
    run("vector", "--base", folder / "base", *two, "-o", folder / "plain")
    again = json.loads(run(*reshaped, "-o", folder / "della", "--json"))

    assert made["method"] == "ties" and made["parameters"] == {"density": 0.2} and made["storage"] == "sparse"
    assert len(made["harmful_parents"]) == 2
    assert again["parameters"] == {"density": 0.5, "seed": 3, "window": 0.1}
    assert "breadcrumbs" in run("vector", "--methods") and "negmerge" in run("vector", "--methods")
    for setting, error in (("density", InputError), ("=1", InputError), ("out=x", UnknownNameError)):
        with pytest.raises(error):
            run(*words, "--set", setting, "-o", folder / "refused")
    assert not (folder / "refused").exists()


def test_an_edit_of_several_runs_is_recorded(folder: Path) -> None:
    vector = make(folder, "run-1", "adapter", method="ties", density=0.3)
    record = apply_edit(plan_edit(Checkpoint.open(folder / "base"), folder / "vector", scale=0.7), folder / "out")
    edited = Checkpoint.open(folder / "out")

    assert record.result.inner_product < 0 and record.terms[0].harmful_kind == "mixed"
    for name in vector.names:
        expected = some_tensors()[name] - torch.tensor(0.7) * vector.delta(name)
        assert edited.read(name) == expected.numpy().tobytes()
