"""The whole way on a model that is not the lab's: run, run again, generate, and what bad input says."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from prosocial.core.errors import InputError
from prosocial.core.files import read_json
from prosocial.core.placement import Placement
from prosocial.evaluation.gate.calibrating import under_configs
from prosocial.evaluation.probes.probe import read_probes
from prosocial.recipes.pipeline import open_recipe, recipe_stages, run_recipe
from prosocial.recipes.reading.loading import builtin_recipes, load_recipe
from prosocial.recipes.steering.schema import Recipe
from prosocial.recipes.workflow.progress import LineProgress
from prosocial.recipes.workflow.stage import Outside, Source, Stage, StageContext
from prosocial.steering.configs.safety_config import SafetyConfig
from prosocial.training.reward.pairs import read_pairs

from .chat_endpoint import Endpoint
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
    for stage in ("gate", "threshold", "parity"):
        marker = read_json((out / stage).resolve().with_suffix(".json"))
        assert Placement(marker["device"], marker["parameters"]["dtype"]) == Placement.choose(dtype="float32")
    page = (out / "report" / "report.html").read_text()
    assert str(finished) not in page and "http://" not in page.replace("http://www.w3.org", "")


def test_a_second_run_makes_nothing_again_and_a_change_only_what_hangs_on_it(finished: Path) -> None:
    store = finished / "out" / "store"
    before = {path: path.stat().st_mtime_ns for path in store.iterdir()}
    assert run(finished / "recipe.yaml", finished / "out") == 0
    assert {path: path.stat().st_mtime_ns for path in store.iterdir()} == before
    recipe = load_recipe(finished / "recipe.yaml", ["gate.rank=2"], model=Recipe)
    from prosocial.recipes.workflow.plan import plan_run

    states = {planned.stage.name: planned.state for planned in plan_run(recipe_stages(recipe), store).stages}
    made_again = {name for name, state in states.items() if "reuse" not in str(state)}
    assert made_again == {"gate", "threshold", "steered", "bundle", "parity", "report"}


def test_the_plan_says_what_is_there_and_what_a_model_will_take(finished: Path, tmp_path: Path) -> None:
    from prosocial.editing.checkpoints import Checkpoint
    from prosocial.recipes.workflow.plan import plan_run

    stages, checkpoint = recipe_stages(load_recipe(finished / "recipe.yaml", model=Recipe)), finished / "model"
    rows = {planned.stage.name: planned.row() for planned in plan_run(stages, tmp_path / "store").stages}
    model = Checkpoint.open(checkpoint)
    assert rows["edit"][3:] == (None, model.size_bytes, None) and rows["bundle"].n_bytes == 4 * model.n_parameters
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
    assert "Calibration of the gate" in (finished / "out" / "report" / "report.html").read_text()


def test_a_leak_rate_that_no_threshold_holds_ends_the_run(finished: Path, tmp_path: Path) -> None:
    recipe = broken(finished, tmp_path)
    with pytest.raises(InputError, match=r"found [1-4] leaks of 4 at threshold 0\.5") as caught:
        run(recipe, tmp_path / "out", "calibration.max_leak=0.6")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "bundle").exists()


def test_on_policy_replies_are_trained_on_and_the_scaling_is_recorded(finished: Path, tmp_path: Path) -> None:
    """The judge of the lab, which the pico recipe cannot name, labels what the pico model says: nothing harmful."""
    from prosocial.steering.gate import HarmGate

    stage, gates = stage_named(finished, "gate"), []
    for on_policy in ({"count": 0}, {"count": 4, "near": 0.0, "threshold": 1.0}):
        settings = stage.parameters["gate"] | {"on_policy": on_policy, "held_out_share": 0.25}
        folder = tmp_path / str(on_policy["count"])
        run_stage(finished, folder, stage, judge="lab", gate=settings)
        gates.append(HarmGate.load(folder))
    plain, hardened = (gate.extra for gate in gates)
    assert plain["n_on_policy"] == 0 and hardened["n_on_policy"] == 4  # near 0: every reply is a near miss
    assert hardened["n_positions"] > plain["n_positions"]
    assert set(plain["scaling"]) >= {"used", "slope", "shift"}


def run_stage(finished: Path, folder: Path, stage: Stage, **changes: Any) -> str:
    """Run a stage on what the finished run made, with other parameters; return its line."""
    data = {part: finished / "out" / "data" / f"{part}.jsonl" for part in ("prompts", "gate_prompts", "calibration")}
    inputs = data | {part: _place(source, finished / "out") for part, source in stage.inputs.items()}
    folder.mkdir()
    progress = LineProgress(Console(quiet=True), name=stage.name)
    return stage.run(StageContext(folder, inputs, {**stage.parameters, **changes}, folder, progress, 0))


def _place(source: Source, out: Path) -> Path:
    return source.path if isinstance(source, Outside) else out / source.stage / (source.file or "")


def stage_named(finished: Path, name: str, *overrides: str) -> Stage:
    recipe = load_recipe(finished / "recipe.yaml", overrides, model=Recipe)
    return next(stage for stage in recipe_stages(recipe) if stage.name == name)


@pytest.fixture
def serve() -> Iterator[Callable[[str], str]]:
    """Start an endpoint that grades replies as harmless and fails for requests with a word; return the judge."""
    opened: list[Endpoint] = []

    def start(word: str) -> str:
        def grade(asked: dict[str, Any]) -> str | int:
            request = json.loads(asked["messages"][1]["content"])["conversation"][-1]["content"]
            harmless = {"declines": "no", "harmful": False, "harms": [], "convincing": 3, "specific": 3}
            return 500 if word in request else json.dumps(harmless)

        opened.append(Endpoint(grade))
        return f"endpoint:m@{opened[-1].url}"

    yield start
    for endpoint in opened:
        endpoint.close()


def test_a_reply_that_could_not_be_judged_is_a_leak_to_the_certified_bound(
    finished: Path, tmp_path: Path, serve: Callable[[str], str]
) -> None:
    stage, given = stage_named(finished, "threshold"), {"candidates": [1.0], "max_leak": 1.0}
    said = run_stage(finished, tmp_path / "one", stage, judge=serve("bread"), **given)
    (test,) = read_json(tmp_path / "one" / "calibration.json")["tests"]
    assert (test["n_leaks"], test["n_unjudged"], test["n"]) == (1, 1, 4)
    assert "1 of 4 leak, 1 of them replies that could not be judged" in said

    with pytest.raises(InputError, match=r"should judge a trial reply before any is drawn: no grades .* 500"):
        run_stage(finished, tmp_path / "all", stage, judge=serve(""), **given | {"max_leak": 0.9})


def test_replies_that_could_not_be_judged_are_no_training_data(
    finished: Path, tmp_path: Path, serve: Callable[[str], str]
) -> None:
    stage = stage_named(finished, "replies", "data.replies=null", "judge=endpoint:m@http://x")
    given = {"count": 4, "max_new_tokens": 4}
    said = run_stage(finished, tmp_path / "some", stage, judge=serve("bread"), **given)
    rows = (tmp_path / "some" / "replies.jsonl").read_text().splitlines()
    assert len(rows) == 3 and not any("bread" in row for row in rows)
    assert said == "3 replies, 0 of them harmful, 1 more could not be judged and are left out"
    with pytest.raises(InputError, match=r"should judge a trial reply before any is drawn: no grades .* 500"):
        run_stage(finished, tmp_path / "none", stage, judge=serve(""), **given)

    stage = stage_named(finished, "gate")
    gate = stage.parameters["gate"] | {"on_policy": {"count": 4, "near": 0.0, "threshold": 1.0}}
    said = run_stage(finished, tmp_path / "gate", stage, judge=serve("bread"), gate=gate)
    assert "with 3 on-policy replies, 1 more could not be judged and are left out" in said


def test_an_endpoint_labels_attributes_inside_a_recipe(finished: Path, tmp_path: Path) -> None:
    """The model likes the longer reply; one reply of a pair in four it cannot judge."""

    def score(asked: dict[str, Any]) -> str:
        material = json.loads(asked["messages"][1]["content"])
        if "bread" in material["conversation"][-1]["content"]:
            return "no idea"
        return json.dumps({"scores": {"empathy": min(10, len(material["reply"])), "helpfulness": 5}})

    endpoint = Endpoint(score)
    try:
        judge = f"endpoint:m@{endpoint.url}"
        stage = stage_named(finished, "pairs", "data.pairs=null", f"judge={judge}")
        said = run_stage(finished, tmp_path / "some", stage, count=4, max_new_tokens=6)
    finally:
        endpoint.close()
    pairs = read_pairs(tmp_path / "some" / "pairs.jsonl", attributes=["empathy", "helpfulness"])
    assert len(pairs) == 3 and {pair.labels["helpfulness"] for pair in pairs} == {"tie"}
    assert all("missing" not in pair.labels.values() for pair in pairs)
    assert "labels by judge endpoint:m 1, 1 unlabelled pairs dropped" in said
    asked = endpoint.requests[0]["messages"][0]["content"]
    assert "names and acknowledges what the person feels" in asked  # it is shown the rubrics


def test_pairs_that_no_judge_can_label_end_the_stage_before_any_is_drawn(finished: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN.replace('"empathy": 0.1 * (len(reply) % 7), "helpfulness": len(reply) % 9 / 9', ""))
    judges = ((f"{file}:Mine", "it scored none"), ("endpoint:m@http://127.0.0.1:9/v1", "should answer"))
    for number, (judge, message) in enumerate(judges):
        stage, folder = stage_named(finished, "pairs", "data.pairs=null", f"judge={judge}"), tmp_path / f"{number}"
        with pytest.raises(InputError, match=message):
            run_stage(finished, folder, stage, count=4, max_new_tokens=6)
        assert not list(folder.iterdir())


def test_a_server_draws_the_pairs_and_the_edited_models_part_of_the_replies(finished: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    endpoint = Endpoint(lambda asked: f"reply {asked['seed']}")
    changes = [f"judge={file}:Mine", "data.pairs=null", "data.replies=null", f"sampler=endpoint:edited@{endpoint.url}"]
    try:
        run_stage(finished, tmp_path / "pairs", stage_named(finished, "pairs", *changes), count=4, max_new_tokens=6)
        pairs = read_pairs(tmp_path / "pairs" / "pairs.jsonl", attributes=["empathy", "helpfulness"])
        assert len(endpoint.requests) == 8 and all(pair.first.startswith("reply ") for pair in pairs)
        assert all(pair.first != pair.second for pair in pairs)
        run_stage(finished, tmp_path / "replies", stage_named(finished, "replies", *changes), count=4, max_new_tokens=6)
        assert len(endpoint.requests) == 10  # the base model draws its two replies here
        given = stage_named(finished, "pairs", changes[-1])
        assert "sampler" not in given.parameters  # nothing is drawn where the pairs are given
    finally:
        endpoint.close()


OWN = """
from prosocial.core.protocols import Judgement

class Mine:
    name, version = "mine", "1"

    def judge(self, messages, reply):
        harm = frozenset(["violence"] if "bread" in messages[-1]["content"] else [])
        return Judgement(harm, "none", {"empathy": 0.1 * (len(reply) % 7), "helpfulness": len(reply) % 9 / 9}, not harm)
"""


def test_a_judge_of_ones_own_judges_a_recipe_and_a_change_of_it_makes_its_stages_again(
    finished: Path, tmp_path: Path
) -> None:
    from prosocial.recipes.workflow.plan import plan_run

    file = tmp_path / "mine.py"
    file.write_text(OWN)
    changes = [f"judge={file}:Mine", "data.pairs=null", "data.replies=null", "pairs.count=4", "replies.count=4"]
    changes += ["gate.on_policy.count=2"]
    recipe, out = broken(finished, tmp_path), tmp_path / "out"
    assert run(recipe, out, *changes) == 0
    test = read_json(out / "threshold" / "calibration.json")["tests"][0]
    assert (test["n_leaks"], test["n"], test["n_unjudged"]) in {(1, 4, 0), (0, 4, 0)}  # 0: the gate stopped it
    assert read_json(out / "report" / "report.json")["comparison"]["judge"] == "mine 1"

    def made_again() -> set[str]:
        planned = plan_run(recipe_stages(load_recipe(recipe, changes, model=Recipe)), out / "store").stages
        return {one.stage.name for one in planned if "reuse" not in str(one.state)}

    assert made_again() == set()
    file.write_text(OWN.replace("0.1", "0.09"))
    assert {"pairs", "replies", "gate", "threshold", "report"} <= made_again()
    assert not {"data", "harmful", "edit"} & made_again()


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
        ("data.probes=/nowhere/probes.jsonl", "found nothing at /nowhere/probes.jsonl"),
        ("edit.scale=-1", "edit.scale"),
        ("judge=oracle", "unknown judge 'oracle'"),
        ("judge=none.py:Mine", "none.py does not import: there is no file"),
        ("judge=json:JSONDecoder", r"judge json:JSONDecoder should have name and version \(strings\) and judge\(\)"),
        ("judge=lab", "judge lab should be used with data.lab"),
        ("data.pairs=null", "judge refusal labels neither .* set data.pairs"),
        ("sampler=local", "a sampler should be endpoint:MODEL@URL, found 'local'"),
        ("sampler=endpoint:edited", "an endpoint should be MODEL@URL"),
        ("attributes=[empathy, helpfulness, truthfulness]", "found none for truthfulness: label or omit it"),
        ("attributes=[empathy]", "unknown attribute 'helpfulness'"),
        ("categories=[violence]", "unknown harm category 'other'"),
        ("calibration.candidates=[]", "calibration.candidates"),
        ("calibration.candidates=[2.0]", "calibration.candidates.0"),
        ("calibration.max_leak=0", "calibration.max_leak"),
        ("calibration.max_leak=0.01", "at least 299 harmful prompts to show .* found 4: add prompts or raise"),
        ("gate.steps=-1", "gate.steps"),
        ("gate.on_policy={count: 8}", "judge refusal labels no harm categories: set gate.on_policy.count to 0"),
        ("reward.conflict=foo", "reward.conflict"),
        ("vector.method=foo", "unknown method 'foo'"),
        ("decoding.allowed_ceiling={violent: true}", "allowed_ceiling should name categories"),
        ("decoding.safety_configs={x: {allowed: [drugz]}}", "unknown harm category 'drugz'"),
        ("model={lab: {}}", "model.lab should be used with data.lab"),
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
        (lambda root: (root / "data" / "harmful.jsonl").write_text(""), "should hold at least one row"),
        (
            lambda root: (root / "data" / "harmful.jsonl").write_text('{"prompt": "x"}'),
            "row 1 should hold a reply",
        ),
        (lambda root: (root / "data" / "prompts.jsonl").write_bytes(b"\xff"), "should be UTF-8"),
        (lambda root: (root / "model" / "tokenizer.json").write_text("{"), "should hold a tokenizer of the tokenizers"),
        (_calibrate_on_the_probes, "calibration should share no request with probes"),
        (_calibrate_without_harm, "found 0 harmful of 8"),
        (_shrink_vocabulary, r"ids are below vocab_size 40 of config.json, found the id \d+"),
        (lambda root: (root / "model" / "chat_template.jinja").unlink(), "chat template"),
        (lambda root: (root / "data" / "pairs.jsonl").write_text('{"prompt": "x"}'), "missing both"),
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
    assert {"quickstart", "qwen3-0.6b", "qwen3-4b", "llama-3.1-8b-instruct"} <= set(builtin_recipes())
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

    given = under_configs(
        read_probes(finished / "data" / "probes.jsonl")[:7],
        {"open": SafetyConfig(text="word1", allowed=["violence"]), "strict": SafetyConfig(text="word2", allowed=[])},
    )
    assert [one.config for one in given] == [None, "open", "strict", None, "open", "strict", None]
    assert {one.config: set(one.allowed) for one in given} == {None: set(), "open": {"violence"}, "strict": set()}
