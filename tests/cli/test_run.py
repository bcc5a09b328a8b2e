"""`prosocial run` hands a recipe over; what is wrong with it is one line before anything is written."""

import json
from pathlib import Path

import pytest

from prosocial.cli.main import main
from prosocial.recipes.pipeline import open_recipe
from prosocial.recipes.reading.loading import builtin_recipes

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["no-such-recipe"], "unknown recipe 'no-such-recipe': known are"),
        (["no/such/recipe.yaml"], "should be an existing file"),
        (["quickstart", "--set", "no_such_key=1"], "unknown key no_such_key"),
        (["quickstart", "--set", "seed"], "should look like a.b=value"),
        (["quickstart", "--set", "seed=[1"], "should be YAML"),
    ],
)
def test_a_wrong_recipe_is_one_line(words: list[str], said: str, tmp_path: Path, capsys: Capture) -> None:
    assert main(["run", *words, "--out", str(tmp_path / "out")]) == 2

    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", builtin_recipes())
def test_every_built_in_recipe_holds(name: str) -> None:
    assert open_recipe(name)[0].name == name


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path: Path, capsys: Capture) -> None:
    assert main(["run", "quickstart", "--out", str(tmp_path / "out"), "--dry-run"]) == 0

    assert "to do" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_dry_run_speaks_json(tmp_path: Path, capsys: Capture) -> None:
    assert main(["run", "quickstart", "--out", str(tmp_path / "out"), "--dry-run", "--json"]) == 0

    assert json.loads(capsys.readouterr().out)
