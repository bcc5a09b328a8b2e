"""A run does what has changed and nothing else, and people see why."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from prosocial.core.errors import InputError, StorageError, UnknownNameError
from prosocial.recipes.workflow.runner import RunResult, delete_dual_use, execute, plan_run
from prosocial.recipes.workflow.stage import Outside, Stage, StageContext, Upstream


class Kitchen:
    """Three stages that count how often each is run: grind -> brew -> serve, brew reads an outside file."""

    def __init__(self, tmp_path: Path) -> None:
        self.store, self.out = tmp_path / "out" / ".stages", tmp_path / "out"
        self.water = tmp_path / "water.txt"
        self.water.write_text("cold")
        self.runs: list[str] = []
        self.strength, self.seed = 3, 0
        self.grind_with = self._grind
        self.grind_is_dual_use = False

    def stages(self) -> list[Stage]:
        return [
            Stage(name="serve", title="pour a cup", run=self._serve, inputs={"pot": Upstream("brew")}),
            Stage(
                name="brew",
                title="brew a pot",
                run=self._brew,
                inputs={"powder": Upstream("grind"), "water": Outside(self.water)},
                parameters={"strength": self.strength},
            ),
            Stage(
                name="grind",
                title="grind the beans",
                run=self.grind_with,
                seed=self.seed,
                dual_use=self.grind_is_dual_use,
            ),
        ]

    def run(self, *, accept_code_change: bool = False) -> RunResult:
        self.runs.clear()
        self.text = io.StringIO()
        plan = plan_run(self.stages(), self.store, accept_code_change=accept_code_change)
        return execute(plan, Console(file=self.text, width=200), out=self.out)

    def _grind(self, context: StageContext) -> str:
        self.runs.append("grind")
        (context.out / "powder").write_text(f"powder {context.seed}")
        return "fine [powder]"

    def grind_by_hand(self, context: StageContext) -> str:
        """The code of this stage after a change."""
        return self._grind(context)

    def grind_again(self, context: StageContext) -> str:
        """Another change."""
        return self._grind(context)

    def _brew(self, context: StageContext) -> str:
        self.runs.append("brew")
        powder, water = (context.inputs["powder"] / "powder").read_text(), context.inputs["water"].read_text()
        (context.out / "coffee").write_text(f"{powder} {water} x{context.parameters['strength']}")
        return "a pot"

    def _serve(self, context: StageContext) -> str:
        self.runs.append("serve")
        cups = list(context.progress.track(range(2), "cups"))
        (context.out / "cup").write_text((context.inputs["pot"] / "coffee").read_text() * len(cups))
        return "a cup"


@pytest.fixture
def kitchen(tmp_path: Path) -> Kitchen:
    return Kitchen(tmp_path)


def test_stages_run_in_the_order_of_their_inputs_and_see_them(kitchen: Kitchen) -> None:
    result = kitchen.run()

    assert kitchen.runs == ["grind", "brew", "serve"]
    assert (result.folder("serve") / "cup").read_text() == "powder 0 cold x3" * 2
    assert result.seconds > 0
    assert result.peak_memory_bytes > 1_000_000


def test_a_second_run_does_nothing_and_gives_the_same_folders(kitchen: Kitchen) -> None:
    first = kitchen.run()
    second = kitchen.run()

    assert kitchen.runs == []
    assert [stage.state for stage in second.stages] == ["reused"] * 3
    assert [stage.folder for stage in second.stages] == [stage.folder for stage in first.stages]
    assert [stage.seconds for stage in second.stages] == [stage.seconds for stage in first.stages]


def test_a_parameter_reruns_its_stage_and_what_follows_only(kitchen: Kitchen) -> None:
    before = kitchen.run()
    kitchen.strength = 4
    after = kitchen.run()

    assert kitchen.runs == ["brew", "serve"]
    assert after.folder("grind") == before.folder("grind")
    assert after.folder("serve") != before.folder("serve")
    kitchen.strength = 3
    kitchen.run()
    assert kitchen.runs == []


@pytest.mark.parametrize("change", ["outside", "seed", "code"])
def test_whatever_a_result_is_made_from_is_part_of_its_key(kitchen: Kitchen, change: str) -> None:
    kitchen.run()
    if change == "outside":
        kitchen.water.write_text("warm")
    elif change == "seed":
        kitchen.seed = 1
    else:
        kitchen.grind_with = kitchen.grind_by_hand
    kitchen.run()

    assert kitchen.runs == (["brew", "serve"] if change == "outside" else ["grind", "brew", "serve"])


def test_a_change_of_code_can_be_accepted_and_the_record_says_so(kitchen: Kitchen) -> None:
    before = kitchen.run()
    kitchen.grind_with = kitchen.grind_by_hand
    after = kitchen.run(accept_code_change=True)

    assert kitchen.runs == []
    assert [stage.state for stage in after.stages] == ["kept", "reused", "reused"]
    assert [stage.folder for stage in after.stages] == [stage.folder for stage in before.stages]
    assert "kept: its code has changed (accepted)" in kitchen.text.getvalue()
    marker = json.loads((kitchen.store / (after.folder("grind").name + ".json")).read_text())
    [accepted] = marker["accepted"]
    assert len({marker["code_version"], accepted["code_version"]}) == 2
    assert [stage.state for stage in kitchen.run().stages] == ["kept", "reused", "reused"], "accepted once and for all"
    assert len(json.loads((kitchen.store / (after.folder("grind").name + ".json")).read_text())["accepted"]) == 1


@pytest.mark.parametrize("change", ["outside", "strength", "seed", "next code"])
def test_nothing_but_the_accepted_change_is_kept(kitchen: Kitchen, change: str) -> None:
    kitchen.run()
    kitchen.grind_with = kitchen.grind_by_hand
    accept = change != "next code"
    match change:
        case "outside":
            kitchen.water.write_text("warm")
        case "strength":
            kitchen.strength = 4
        case "seed":
            kitchen.seed = 1
        case _:
            kitchen.run(accept_code_change=True)
            kitchen.grind_with = kitchen.grind_again
    kitchen.run(accept_code_change=accept)

    assert kitchen.runs == (["brew", "serve"] if change in ("outside", "strength") else ["grind", "brew", "serve"])


def test_a_deleted_dual_use_result_does_not_stand_in_the_way_of_accepting(kitchen: Kitchen) -> None:
    kitchen.grind_is_dual_use = True
    kitchen.run()
    delete_dual_use(plan_run(kitchen.stages(), kitchen.store), out=kitchen.out)
    kitchen.grind_with = kitchen.grind_by_hand
    for accept in (True, False):
        states = [stage.state for stage in kitchen.run(accept_code_change=accept).stages]
        assert (kitchen.runs, states) == ([], ["cleaned", "kept", "reused"])
    kitchen.grind_with = kitchen.grind_again
    kitchen.run()
    assert kitchen.runs == ["grind", "brew", "serve"]


def test_the_place_of_an_outside_input_is_not_part_of_the_key(kitchen: Kitchen) -> None:
    kitchen.run()
    kitchen.water = kitchen.water.rename(kitchen.water.with_name("moved.txt"))
    kitchen.run()

    assert kitchen.runs == []


@pytest.mark.parametrize("damage", ["marker gone", "marker of another key", "marker torn", "file gone", "file cut"])
def test_a_result_that_is_not_whole_is_made_again(kitchen: Kitchen, damage: str) -> None:
    folder = kitchen.run().folder("brew")
    marker = folder.with_name(folder.name + ".json")
    match damage:
        case "marker gone":
            marker.unlink()
        case "marker of another key":
            marker.write_text(json.dumps({**json.loads(marker.read_text()), "key": "0" * 64}))
        case "marker torn":
            marker.write_text(marker.read_text()[:40])
        case "file gone":
            (folder / "coffee").unlink()
        case _:
            (folder / "coffee").write_text("")
    kitchen.run()

    assert kitchen.runs == ["brew"]
    assert (folder / "coffee").read_text() == "powder 0 cold x3"


def test_an_artefact_holds_only_what_its_stage_wrote(kitchen: Kitchen) -> None:
    result = kitchen.run()

    assert [path.name for path in result.folder("brew").iterdir()] == ["coffee"]
    marker = json.loads((kitchen.store / (result.folder("brew").name + ".json")).read_text())
    assert marker["schema"] == "prosocial.stage/1"
    assert marker["inputs"]["powder"]["stage"] == "grind"
    assert len(marker["inputs"]["water"]["sha256"]) == 64
    assert marker["summary"] == "a pot"
    assert marker["parameters"] == {"strength": 3}


def test_results_are_linked_relatively_and_an_old_link_never_stays(kitchen: Kitchen, tmp_path: Path) -> None:
    kitchen.run()
    kitchen.strength = 4
    result = kitchen.run()

    assert (kitchen.out / "brew").resolve() == result.folder("brew").resolve()
    kitchen.out.rename(tmp_path / "moved")
    assert (tmp_path / "moved" / "serve" / "cup").read_text() == "powder 0 cold x4" * 2


def test_links_of_a_failed_run_do_not_mix_with_older_results(kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch) -> None:
    kitchen.run()
    kitchen.strength = 4
    kitchen.water.write_text("warm")
    monkeypatch.setattr(kitchen, "_serve", lambda context: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        kitchen.run()

    assert sorted(link.name for link in kitchen.out.iterdir() if link.is_symlink()) == ["brew", "grind"]


def test_a_users_file_where_a_link_should_go_is_refused_before_any_work(kitchen: Kitchen) -> None:
    kitchen.out.mkdir()
    (kitchen.out / "serve").write_text("mine")
    with pytest.raises(InputError, match="should be free for a link"):
        kitchen.run()

    assert kitchen.runs == []
    assert (kitchen.out / "serve").read_text() == "mine"


def test_leftovers_of_other_runs_go_and_their_scratch_stays(kitchen: Kitchen) -> None:
    kitchen.run()
    partial, unmarked, scratch = (kitchen.store / name for name in (".x-1.partial", "x-" + "0" * 12, ".x-1.scratch"))
    for folder in (partial, unmarked, scratch):
        folder.mkdir()
    kitchen.run()

    assert not partial.exists()
    assert not unmarked.exists()
    assert scratch.exists()
    delete_dual_use(plan_run(kitchen.stages(), kitchen.store))
    assert not scratch.exists()
    assert (kitchen.out / "serve" / "cup").exists(), "what is not dual-use stays"


def test_a_summary_is_one_line_whatever_the_stage_returns(tmp_path: Path) -> None:
    stage = Stage(name="a", title="a", run=lambda context: "two\n  lines ")

    assert execute(plan_run([stage], tmp_path), Console(quiet=True)).stages[0].summary == "two lines"


def test_lines_for_people_name_stage_time_and_summary(kitchen: Kitchen) -> None:
    kitchen.run()
    first = kitchen.text.getvalue()
    kitchen.run()
    second = kitchen.text.getvalue()

    assert "grind" in first
    assert "fine [powder]" in first
    assert "cups" in first
    assert "3 stages in" in first
    assert "peak memory" in first
    assert second.count("reused") == 3


def test_a_stage_that_needs_more_disk_than_there_is_does_not_start(tmp_path: Path) -> None:
    stage = Stage(name="big", title="too big", run=lambda context: 1 / 0, estimate_bytes=1 << 60)
    with pytest.raises(StorageError, match=r"stage big needs about 115292\d\.\d TB"):
        execute(plan_run([stage], tmp_path / "store"), Console(quiet=True))


def test_the_plan_says_what_is_reused_without_writing(kitchen: Kitchen) -> None:
    kitchen.run()
    kitchen.strength = 4
    plan = plan_run(kitchen.stages(), kitchen.store)
    before = sorted(kitchen.store.iterdir())
    text = io.StringIO()
    plan.print(Console(file=text, width=200))

    assert {row["stage"]: row["state"] for row in plan.to_json()} == {
        "grind": "reused",
        "brew": "to do",
        "serve": "to do",
    }
    assert "brew a pot" in text.getvalue()
    assert sorted(kitchen.store.iterdir()) == before


def test_dual_use_results_go_and_are_made_again_only_when_needed(kitchen: Kitchen) -> None:
    kitchen.grind_is_dual_use = True
    kitchen.run()
    kitchen.seed = 1
    kitchen.run()
    deleted = delete_dual_use(plan_run(kitchen.stages(), kitchen.store), out=kitchen.out)

    assert len(deleted) == 2, "the result of the earlier run is deleted as well"
    assert not [path for path in kitchen.store.iterdir() if path.name.startswith("grind")]
    assert not (kitchen.out / "grind").is_symlink()
    result = kitchen.run()
    assert kitchen.runs == []
    assert [stage.state for stage in result.stages] == ["cleaned", "reused", "reused"]
    kitchen.strength = 9
    kitchen.run()
    assert kitchen.runs == ["grind", "brew", "serve"]


def test_results_become_json(kitchen: Kitchen) -> None:
    value = json.loads(json.dumps(kitchen.run().to_json()))

    assert [stage["name"] for stage in value["stages"]] == ["grind", "brew", "serve"]
    assert Path(value["stages"][0]["folder"]).is_dir()


def test_an_unknown_stage_of_a_result_lists_the_known(kitchen: Kitchen) -> None:
    with pytest.raises(UnknownNameError, match="known are brew, grind, serve"):
        kitchen.run().folder("roast")


def _stage(name: str, **kwargs: object) -> Stage:
    return Stage(name=name, title=name, run=lambda context: name, **kwargs)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([_stage("a"), _stage("a")], "should be distinct"),
        ([_stage("a", inputs={"x": Upstream("b")})], r"unknown stage \(an input of a\) 'b': known are a"),
        ([_stage("a", inputs={"x": Upstream("b")}), _stage("b", inputs={"x": Upstream("a")})], "in a cycle"),
        ([_stage("a", parameters={"x": float("nan")})], "finite JSON"),
        ([_stage("a", parameters={"x": Path("y")})], "finite JSON"),
        ([_stage("a", inputs={"x": Outside(Path("/nowhere/at/all"))})], "found nothing at"),
    ],
)
def test_stages_that_make_no_plan_are_refused(stages: list[Stage], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        plan_run(stages, tmp_path)


@pytest.mark.parametrize("name", ["Gate", "a_b", "", "-a", "a/b", "a.b"])
def test_a_stage_name_is_a_plain_folder_name(name: str) -> None:
    with pytest.raises(InputError, match="lower-case words"):
        _stage(name)


def test_a_package_that_a_later_stage_lacks_is_named_before_the_first_stage(kitchen: Kitchen) -> None:
    stages = [
        replace(stage, needs=("no_such_package",)) if stage.name == "serve" else stage for stage in kitchen.stages()
    ]
    with pytest.raises(ModuleNotFoundError, match="stage serve needs no_such_package"):
        execute(plan_run(stages, kitchen.store), Console(file=io.StringIO()))
    assert kitchen.runs == []
    kitchen.run()
    execute(plan_run(stages, kitchen.store), Console(file=io.StringIO()))  # what is there needs nothing


def test_what_was_left_under_other_settings_is_set_aside_with_one_line(kitchen: Kitchen) -> None:
    def fail(context: StageContext) -> str:
        (context.scratch / "half").write_bytes(b"x" * 5000)
        raise InputError("no beans")

    whole, kitchen.grind_with = kitchen.grind_with, fail
    with pytest.raises(InputError, match="no beans"):
        kitchen.run()
    kitchen.grind_with, kitchen.seed = whole, 1
    kitchen.run()

    lines = [line for line in kitchen.text.getvalue().splitlines() if "set aside" in line]
    assert len(lines) == 1 and "1 unfinished under other settings, 5.0 kB" in lines[0] and "--clean" in lines[0]
    assert kitchen.runs == ["grind", "brew", "serve"]
    delete_dual_use(plan_run(kitchen.stages(), kitchen.store))
    kitchen.run()
    assert "set aside" not in kitchen.text.getvalue()
