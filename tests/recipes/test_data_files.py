"""A changed data file makes again what reads it and what follows, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from prosocial.core.errors import InputError
from prosocial.recipes.pipeline import open_recipe, recipe_stages
from prosocial.recipes.reading.loading import load_recipe
from prosocial.recipes.steering.schema import Recipe
from prosocial.recipes.workflow.runner import RunResult, execute, plan_run
from prosocial.recipes.workflow.stage import Outside, Stage, StageContext, Upstream

from .pico_recipe import write_recipe

AFTER_THE_THRESHOLD = {"threshold", "steered", "bundle", "parity", "report"}
AFTER_THE_EDIT = {"reward", "head", "gate"} | AFTER_THE_THRESHOLD
READERS = {
    "harmful": {"harmful", "vector", "edit"} | AFTER_THE_EDIT,
    "prompts": set[str](),
    "pairs": {"pairs", "reward", "head"} | AFTER_THE_THRESHOLD,
    "replies": {"replies", "gate"} | AFTER_THE_THRESHOLD,
    "calibration": AFTER_THE_THRESHOLD,
    "probes": {"parity", "report"},
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("pico"))


def _keys(recipe: Path, *overrides: str) -> dict[str, str]:
    stages = recipe_stages(load_recipe(recipe, overrides, model=Recipe))
    return {planned.stage.name: planned.key for planned in plan_run(stages, recipe.parent / "store").stages}


def _append_copy(path: Path) -> None:
    rows = path.read_text().splitlines()
    first = json.loads(rows[0])
    extra = first | ({"id": "one-more", "text": "one more?"} if "id" in first else {})
    path.write_text("\n".join([*rows, json.dumps(extra)]) + "\n")


@pytest.mark.parametrize("part", READERS)
def test_the_keys_that_change_are_of_those_who_read_the_file_and_what_follows(recipe: Path, part: str) -> None:
    path, before = recipe.parent / "data" / f"{part}.jsonl", _keys(recipe)
    text = path.read_text()
    _append_copy(path)
    after = _keys(recipe)
    path.write_text(text)

    assert {name for name, key in after.items() if key != before[name]} == {"data"} | READERS[part]
    assert _keys(recipe) == before


def test_a_file_of_its_own_for_the_gates_prompts_is_read_by_the_gate_alone(recipe: Path, tmp_path: Path) -> None:
    """Where replies are sampled; a judge that labels them is asked for, which is never opened here."""
    prompts = recipe.parent / "data" / "prompts.jsonl"
    changes = ["judge=endpoint:m@http://localhost/v1", "data.replies=null", "data.pairs=null"]
    keys = _keys(recipe, *changes)
    own = tmp_path / "gate.jsonl"
    own.write_text(prompts.read_text() + prompts.read_text())
    with_own = _keys(recipe, *changes, f"data.gate_prompts={own}")

    changed = {name for name, key in with_own.items() if key != keys[name]}
    assert changed == {"data", "replies", "gate"} | AFTER_THE_THRESHOLD


def test_probes_among_the_calibration_prompts_are_refused_before_any_other_stage(recipe: Path, tmp_path: Path) -> None:
    probes = recipe.parent / "data" / "probes.jsonl"
    stages = recipe_stages(load_recipe(recipe, [f"data.calibration={probes}"], model=Recipe))
    with pytest.raises(InputError, match="calibration should share no request with probes"):
        execute(plan_run(stages, tmp_path / "store"), Console(quiet=True))

    assert not list((tmp_path / "store").glob("*.json"))


class World:
    """A stage that writes two files of its own, as the lab does, and one reader of each; it counts who runs."""

    def __init__(self, store: Path) -> None:
        self.store, self.runs, self.n_probes, self.size = store, list[str](), 3, 1

    def run(self) -> RunResult:
        self.runs.clear()
        parameters: dict[str, Any] = {"probes": self.n_probes, "size": self.size}
        train, report = Upstream("data", "train.jsonl"), Upstream("data", "probes.jsonl")
        stages = [
            Stage(name="data", title="write", run=self._write, parameters=parameters),
            Stage(name="model", title="train", run=self._read, inputs={"rows": train}),
            Stage(name="report", title="report", run=self._read, inputs={"model": Upstream("model"), "rows": report}),
        ]
        return execute(plan_run(stages, self.store), Console(quiet=True))

    def _write(self, context: StageContext) -> str:
        self.runs.append("data")
        (context.out / "train.jsonl").write_text("{}\n" * context.parameters["size"])
        (context.out / "probes.jsonl").write_text("{}\n" * context.parameters["probes"])
        return "data"

    def _read(self, context: StageContext) -> str:
        self.runs.append("report" if "model" in context.inputs else "model")
        (context.out / "rows").write_text(context.inputs["rows"].read_text())
        return "read"


def test_files_that_a_stage_writes_anew_count_by_what_they_hold(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.run()
    assert world.runs == ["data", "model", "report"]
    world.n_probes = 4
    result = world.run()
    assert world.runs == ["data", "report"]
    assert (result.folder("report") / "rows").read_text() == "{}\n" * 4
    world.run()
    assert world.runs == []
    world.size = 2
    world.run()
    assert world.runs == ["data", "model", "report"]


def test_a_marker_names_the_file_and_its_content(tmp_path: Path) -> None:
    folder = World(tmp_path).run().folder("model")
    marker = json.loads(folder.with_name(folder.name + ".json").read_text())

    assert marker["inputs"]["rows"] == {"stage": "data", "file": "train.jsonl"} | {
        "sha256": Outside(folder / "rows").digest()
    }


def test_the_labs_files_have_readers_of_their_own() -> None:
    for name in ("quickstart", "cosalign"):
        recipe, pipeline = open_recipe(name)
        sources = [source for stage in pipeline.stages(recipe) for source in stage.inputs.values()]
        of_data = [source for source in sources if isinstance(source, Upstream) and source.stage == "data"]

        assert of_data and all(source.file for source in of_data)
