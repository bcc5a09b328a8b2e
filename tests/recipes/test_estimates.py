"""The plan of a recipe on one's own model says what each stage will take, from batches measured here."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from prosocial.cli.main import main
from prosocial.core.chat import ChatTokenizer
from prosocial.editing.checkpoints import Checkpoint
from prosocial.recipes.reading.loading import load_recipe
from prosocial.recipes.steering.schema import FileData, Recipe
from prosocial.recipes.steering.workload import ROWS_AT_ONCE, Lengths, Speed, Workload, data_lengths

from .pico_recipe import write_recipe

SPEED = Speed(read=1e-3, train=3e-3, alone=0.1, many=0.4, train_bytes=1e4)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with more layers than are measured."""
    return write_recipe(tmp_path_factory.mktemp("deep"), n_layers=8)


def workload(recipe: Path, *changes: str) -> Workload:
    loaded = load_recipe(recipe, changes, model=Recipe)
    folder = Path(str(loaded.model))
    assert isinstance(loaded.data, FileData)
    lengths = data_lengths(loaded.data, ChatTokenizer(folder))
    return Workload(loaded, Checkpoint.open(folder), lengths, SPEED, SPEED)


def test_a_dry_run_gives_time_memory_and_disk_of_every_stage(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", str(recipe), "--out", str(tmp_path / "out"), "--dry-run"]
    assert main([*words, "--json"]) == 0
    rows = {row["stage"]: row for row in json.loads(capsys.readouterr().out)}
    assert len(rows) == 14 and all(row["seconds"] > 0 and row["memory_bytes"] > 1e8 for row in rows.values())
    assert rows["bundle"]["bytes"] > 0
    assert main([*words, "--no-measure", "--json"]) == 0
    unmeasured = json.loads(capsys.readouterr().out)
    assert {row["seconds"] for row in unmeasured} == {None}
    assert [row["key"] for row in unmeasured] == [row["key"] for row in rows.values()]
    assert not (tmp_path / "out").exists()


def test_work_and_time_grow_together(recipe: Path) -> None:
    few, many = (workload(recipe, f"harmful.steps={n}", f"reward.steps={n}").estimates() for n in (100, 200))
    assert many["harmful"].seconds == pytest.approx(2 * few["harmful"].seconds)
    assert few["reward"].seconds < many["reward"].seconds < 2 * few["reward"].seconds  # the accuracy does not grow
    assert many["harmful"].memory_bytes == few["harmful"].memory_bytes
    wide = workload(recipe, "harmful.batch_size=64").estimates()["harmful"]
    assert wide.memory_bytes > few["harmful"].memory_bytes
    slow = replace(workload(recipe), exact=replace(SPEED, alone=1.0, many=4.0)).estimates()
    assert slow["report"].seconds > 5 * workload(recipe).estimates()["report"].seconds
    assert slow["harmful"] == workload(recipe).estimates()["harmful"]


def test_what_is_drawn_takes_longer_than_what_is_given(recipe: Path) -> None:
    given = workload(recipe)
    drawn = replace(given, lengths={name: rows for name, rows in given.lengths.items() if name != "pairs"})
    assert drawn.estimates()["pairs"].seconds > given.estimates()["pairs"].seconds


def test_lengths_are_those_of_the_rows(recipe: Path) -> None:
    lengths = workload(recipe).lengths
    assert lengths["harmful"].n == 4 and lengths["pairs"].n == 12 and lengths["probes"].n == 12
    assert lengths["prompts"].reply == 0 and lengths["harmful"].reply > 5
    assert lengths["gate_prompts"] == lengths["prompts"]
    assert lengths["pairs"].some(2) == Lengths(2, lengths["pairs"].prompt, lengths["pairs"].reply, 2)
    assert SPEED.step(1) == SPEED.alone and SPEED.step(ROWS_AT_ONCE) == pytest.approx(SPEED.many)


def test_the_labs_plan_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from prosocial.cli.main import main; "
        f"code = main(['run', 'quickstart', '--dry-run', '--out', {str(tmp_path / 'out')!r}]); "
        "print('torch' in sys.modules, code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False 0"
    assert "memory" in done.stdout and "GB" in done.stdout
