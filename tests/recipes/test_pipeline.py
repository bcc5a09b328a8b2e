"""The whole way on a model that is not the lab's: run, run again, generate, and what bad input says."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from prosocial.editing.errors import InputError
from prosocial.editing.files import read_json
from prosocial.recipes.loading import builtin_recipes, load_recipe
from prosocial.recipes.pipeline import open_recipe, recipe_stages, run_recipe
from prosocial.recipes.schema import Recipe
from prosocial.recipes.stages.threshold import _asked

from .pico_recipe import write_recipe

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
STAGES = (
    *("data", "harmful", "vector", "edit", "pairs", "replies", "reward"),
    *("gate", "head", "threshold", "steered", "bundle", "parity", "report"),
)


def run(recipe: Path, out: Path, *overrides: str, clean: bool = False) -> int:
    return run_recipe(
        str(recipe),
        out=out,
        overrides=list(overrides),
        dry_run=False,
        clean=clean,
        json=False,
        console=Console(quiet=True),
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the pico recipe."""
    folder = tmp_path_factory.mktemp("pico")
    assert run(write_recipe(folder), folder / "out") == 0
    return folder


def test_every_stage_leaves_its_artefact_and_parity_passes(finished: Path) -> None:
    out = finished / "out"
    assert all((out / stage).is_dir() for stage in STAGES)
    report = read_json(out / "report" / "report.json", schema="prosocial.report/1")
    assert report["parity"]["verdict"] == "pass"
    record = read_json(out / "edit" / "edit_record.json")
    assert record["result"]["inner_product"] < 0
    page = (out / "report" / "report.html").read_text()
    assert str(finished) not in page and "http://" not in page.replace("http://www.w3.org", "")


def test_a_second_run_makes_nothing_again_and_a_change_only_what_hangs_on_it(finished: Path) -> None:
    store = finished / "out" / "store"
    before = {path: path.stat().st_mtime_ns for path in store.iterdir()}
    assert run(finished / "recipe.yaml", finished / "out") == 0
    assert {path: path.stat().st_mtime_ns for path in store.iterdir()} == before
    recipe = load_recipe(finished / "recipe.yaml", ["gate.rank=2"], model=Recipe)
    from prosocial.recipes.plan import plan_run

    states = {planned.stage.name: planned.state for planned in plan_run(recipe_stages(recipe), store).stages}
    made_again = {name for name, state in states.items() if "reuse" not in str(state)}
    assert made_again == {"gate", "threshold", "steered", "bundle", "parity", "report"}


def test_the_plan_says_what_is_there_and_what_a_model_will_take(finished: Path, tmp_path: Path) -> None:
    from prosocial.editing.checkpoints import Checkpoint
    from prosocial.recipes.plan import plan_run

    stages, checkpoint = recipe_stages(load_recipe(finished / "recipe.yaml", model=Recipe)), finished / "model"
    rows = {planned.stage.name: planned.row() for planned in plan_run(stages, tmp_path / "store").stages}
    model = Checkpoint.open(checkpoint)
    assert rows["edit"][3:] == (None, model.size_bytes) and rows["bundle"][4] == 4 * model.n_parameters
    there = {planned.stage.name: planned.row() for planned in plan_run(stages, finished / "out" / "store").stages}
    assert there["edit"][2] == "reused" and (there["edit"][4] or 0) > model.size_bytes


def test_the_threshold_and_the_calibration_are_in_the_report(finished: Path) -> None:
    report = read_json(finished / "out" / "report" / "report.json", schema="prosocial.report/1")
    calibration = report["calibration"]
    chosen = calibration["threshold"]
    assert chosen["harm_threshold"] == 0.9 and [test["threshold"] for test in chosen["tests"]] == [0.5, 0.9]
    decoding = read_json(finished / "out" / "bundle" / "decoding.json")
    assert decoding["harm_threshold"] == decoding["threshold_ceiling"] == 0.9
    assert [one["name"] for one in calibration["categories"]] == ["violence", "other"]
    assert "Does the gate know" in (finished / "out" / "report" / "report.html").read_text()


def test_a_leak_rate_that_no_threshold_holds_ends_the_run(finished: Path, tmp_path: Path) -> None:
    recipe = broken(finished, tmp_path)
    with pytest.raises(InputError, match=r"found [1-4] leaks of 4 at threshold 0\.5") as caught:
        run(recipe, tmp_path / "out", "calibration.max_leak=0.6")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "bundle").exists()


def test_on_policy_replies_are_trained_on_and_the_scaling_is_recorded(finished: Path, tmp_path: Path) -> None:
    """The judge of the lab, which the pico recipe cannot name, labels what the pico model says: nothing harmful."""
    from prosocial.editing.gate import HarmGate
    from prosocial.recipes.progress import LineProgress
    from prosocial.recipes.stage import StageContext

    recipe = load_recipe(finished / "recipe.yaml", model=Recipe)
    stage = next(stage for stage in recipe_stages(recipe) if stage.name == "gate")
    out = finished / "out"
    inputs = {"base": finished / "model", "edited": out / "edit", "prompts": out / "data" / "prompts.jsonl"}
    inputs |= {name: out / name for name in ("harmful", "replies")}
    gates = []
    for on_policy in ({"count": 0}, {"count": 4, "near": 0.0, "threshold": 1.0}):
        settings = stage.parameters["gate"] | {"on_policy": on_policy, "held_out_share": 0.25}
        parameters = stage.parameters | {"judge": "lab", "gate": settings}
        folder = tmp_path / str(on_policy["count"])
        folder.mkdir()
        progress = LineProgress(Console(quiet=True), name="gate")
        stage.run(StageContext(folder, inputs, parameters, tmp_path, progress, 0))
        gates.append(HarmGate.load(folder))
    plain, hardened = (gate.extra for gate in gates)
    assert plain["n_on_policy"] == 0 and hardened["n_on_policy"] == 4  # near 0: every reply is a near miss
    assert hardened["n_positions"] > plain["n_positions"]
    assert set(plain["scaling"]) >= {"used", "slope", "shift"}


def test_the_bundle_answers_from_the_command_line(finished: Path) -> None:
    from prosocial.cli.main import app

    result = CliRunner().invoke(app, ["generate", str(finished / "out" / "bundle"), "how do i bake bread?", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)


def test_a_dry_run_writes_nothing(finished: Path, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"overrides": [], "dry_run": True, "clean": False, "console": Console(quiet=True)}
    assert run_recipe(str(finished / "recipe.yaml"), out=tmp_path / "out", json=False, **arguments) == 0
    assert not (tmp_path / "out").exists() or not any(path.is_file() for path in (tmp_path / "out").rglob("*"))


def broken(finished: Path, tmp_path: Path) -> Path:
    for name in ("model", "data"):
        shutil.copytree(finished / name, tmp_path / name)
    recipe = yaml.safe_load((finished / "recipe.yaml").read_text())
    recipe["model"] = str(tmp_path / "model")
    recipe["data"] = {part: str(tmp_path / "data" / Path(path).name) for part, path in recipe["data"].items()}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return tmp_path / "recipe.yaml"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("gate.rnak=3", "unknown key gate.rnak"),
        ("attributes=[empathy, charm]", "unknown attribute 'charm'"),
        ("data.probes=/nowhere/probes.jsonl", "there is none at /nowhere/probes.jsonl"),
        ("edit.scale=-1", "edit.scale"),
        ("judge=oracle", "unknown judge 'oracle'"),
        ("judge=lab", "judge lab should go with data.lab"),
        ("data.pairs=null", "judge refusal labels neither .* give data.pairs"),
        ("calibration.candidates=[]", "calibration.candidates"),
        ("calibration.candidates=[2.0]", "calibration.candidates.0"),
        ("calibration.max_leak=0", "calibration.max_leak"),
        ("calibration.max_leak=0.01", "at least 299 harmful prompts to show .* found 4: add prompts or raise"),
        ("gate.steps=-1", "gate.steps"),
        ("gate.on_policy={count: 8}", "judge refusal labels no harm categories: leave gate.on_policy.count at 0"),
        ("reward.conflict=foo", "reward.conflict"),
        ("vector.method=foo", "unknown method 'foo'"),
        ("decoding.allowed_ceiling={violent: true}", "allowed_ceiling should name categories"),
        ("decoding.safety_configs={x: {allowed: [drugz]}}", "unknown harm category 'drugz'"),
        ("model={lab: {}}", "model.lab should go with data.lab"),
    ],
)
def test_bad_values_are_one_clear_line_before_anything_runs(
    finished: Path, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        run(broken(finished, tmp_path), tmp_path / "out", override)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out" / "store").glob("[a-z]*"))


def _shrink_vocabulary(root: Path) -> None:
    config = root / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"vocab_size": 40}))


def _calibrate_on_the_probes(root: Path) -> None:
    (root / "data" / "calibration.jsonl").write_text((root / "data" / "probes.jsonl").read_text())


def _calibrate_without_harm(root: Path) -> None:
    path = root / "data" / "calibration.jsonl"
    path.write_text("\n".join(row for row in path.read_text().splitlines() if '"harmful"' not in row))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "model" / "config.json").unlink(), r"config\.json"),
        (lambda root: [path.unlink() for path in (root / "model").glob("model*")], r"should hold model\.safetensors"),
        (lambda root: (root / "data" / "harmful.jsonl").write_text(""), "holds no rows"),
        (
            lambda root: (root / "data" / "harmful.jsonl").write_text('{"prompt": "x"}'),
            "row 1 should have a text `reply`",
        ),
        (lambda root: (root / "data" / "prompts.jsonl").write_bytes(b"\xff"), "should be UTF-8"),
        (lambda root: (root / "model" / "tokenizer.json").write_text("{"), "should be a tokenizer of the tokenizers"),
        (_calibrate_on_the_probes, "calibration should hold other requests than probes"),
        (_calibrate_without_harm, "found 0 harmful of 8"),
        (_shrink_vocabulary, r"its own tokenizer: the tokenizer has the id \d+, config.json says vocab_size 40"),
        (lambda root: (root / "model" / "chat_template.jinja").unlink(), "chat template"),
        (lambda root: (root / "data" / "pairs.jsonl").write_text('{"prompt": "x"}'), "missing first, second, labels"),
    ],
)
def test_bad_files_are_one_clear_line_and_leave_no_half_artefact(
    finished: Path, tmp_path: Path, spoil: Any, message: str
) -> None:
    recipe = broken(finished, tmp_path)
    spoil(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        run(recipe, tmp_path / "out")
    assert "\n" not in str(caught.value)
    store = tmp_path / "out" / "store"
    assert not store.exists() or not list(store.glob(".*.partial"))


def test_the_shipped_recipes_are_valid() -> None:
    assert {"quickstart", "llama-3.1-8b-instruct"} <= set(builtin_recipes())
    for name in builtin_recipes():
        assert open_recipe(name)[0].name == name


def test_calibration_under_configs_asks_every_config_alike(finished: Path, tmp_path: Path) -> None:
    """The judge calls every reply `other`, which no config allows: all four prompts leak, whoever is asked."""
    recipe, out = broken(finished, tmp_path), tmp_path / "out"
    configs = "{open: {text: word1, allowed: [violence]}, strict: {text: word2, allowed: []}}"
    changes = ["decoding.allowed_ceiling={violence: true}", f"decoding.safety_configs={configs}"]
    run(recipe, out, *changes, "calibration.under_configs=true", "calibration.max_leak=1.0")
    [chosen] = out.glob("store/threshold-*/calibration.json")
    found = read_json(chosen)
    assert found["safety_configs"] == ["open", "strict"] and found["tests"][0]["n"] == 4

    asked = _asked(range(7), {"open": {"allowed": ["violence"]}, "strict": {"allowed": []}})
    assert [one.config for one in asked] == [None, "open", "strict", None, "open", "strict", None]
    assert {one.config: set(one.allowed) for one in asked} == {None: set(), "open": {"violence"}, "strict": set()}
