"""A method is its file: what it is called, its parameters and their bounds are read from it, everywhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from prosocial.editing.vectors.methods import METHODS, Method

from ....weights_helpers import MATRIX, moved, some_tensors, write_checkpoint
from .test_methods import PAGE, faults_of

FILE = PAGE.partition("## Adding a method")[2].partition("```text\n")[2].partition("```")[0]  # the page's own example
START = """
import sys
from prosocial.editing.vectors import methods
methods.__path__.append(sys.argv[1])
"""


def python(program: str, *words: object, expected_code: int = 0) -> str:
    """Run a program in a process of its own whose methods are ours and those of a folder."""
    command = [sys.executable, "-c", START + program, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "200"})
    assert done.returncode == expected_code, done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that holds nothing but the file of a method."""
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "shrink.py").write_text(FILE, encoding="utf-8")
    return tmp_path / "methods"


COMMAND = "from prosocial.cli.main import main\nsys.exit(main(sys.argv[2:]))"


def test_a_new_file_is_a_method_of_the_command_line(folder: Path, tmp_path: Path) -> None:
    base = some_tensors()
    write_checkpoint(tmp_path / "base", base)
    write_checkpoint(tmp_path / "harmful", moved(base))
    make = ["vector", "--base", tmp_path / "base", "--harmful", tmp_path / "harmful", "-o"]
    python(COMMAND, folder, *make, tmp_path / "plain")
    python(COMMAND, folder, *make, tmp_path / "shrunk", "--method", "shrink", "--set", "share=0.5", "--set", "times=2")
    plain, shrunk = (load_file(tmp_path / name / "vector.safetensors") for name in ("plain", "shrunk"))

    assert (shrunk[MATRIX] == 0.25 * plain[MATRIX]).all() and shrunk[MATRIX].any()
    assert json.loads((tmp_path / "shrunk" / "vector.json").read_text())["parameters"] == {"share": 0.5, "times": 2}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "shrink should be given share"),
        (["share=2"], "share should be a number in [0, 1]"),
        (["share=0.5", "times=0.5"], "times should be a whole number"),
        (["share=0.5", "size=1"], "unknown parameter of method shrink 'size': known are share, times"),
    ],
)
def test_its_parameters_are_checked_before_anything_is_read(folder: Path, settings: list[str], message: str) -> None:
    words = ["vector", "--harmful", folder / "absent", "-o", folder / "out", "--method", "shrink"]
    sets = [word for setting in settings for word in ("--set", setting)]

    assert message in python(COMMAND, folder, *words, *sets, expected_code=2)


def test_it_is_listed_with_its_bounds_and_without_torch(folder: Path) -> None:
    shown = python(f"sys.modules['torch'] = None\n{COMMAND}", folder, "vector", "--methods")

    assert "share: a number in [0, 1]" in shown and "times=1: a whole number of at least 1" in shown
    assert "Multiply every element" in shown
    assert shown.index(" shrink ") < shown.index(" ties ")  # in the order of names


def test_a_sweep_searches_what_its_signature_says(folder: Path) -> None:
    program = """
import json, optuna
from prosocial.evaluation.sweep import SearchSpace
space = SearchSpace(("shrink",), given={"times": 2, "other": 1})
study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
drawn = [space.choose(study.ask()).parameters for _ in range(9)]
print(json.dumps([space.to_json()["ranges"], space.given_to("shrink"), drawn]))
"""
    ranges, given, drawn = json.loads(python(program, folder).splitlines()[0])

    assert ranges == {"shrink": {"share": [0.25, 0.75]}} and given == {"times": 2}
    assert all(row.keys() == {"share"} and 0.25 <= row["share"] <= 0.75 for row in drawn)


def test_a_recipe_takes_it(folder: Path) -> None:
    program = """
from prosocial.recipes.reading.loading import load_recipe
from prosocial.recipes.steering.schema import Recipe
for share in ("0.5", "3"):
    try:
        recipe = load_recipe("quickstart", ["vector.method=shrink", f"vector.parameters.share={share}"], model=Recipe)
        print(recipe.vector.parameters)
    except Exception as error:
        print(error)
"""
    good, bad = python(program, folder).splitlines()[:2]

    assert good == "{'share': 0.5}"
    assert "share should be a number in [0, 1]" in bad


def test_a_page_without_its_section_is_found() -> None:
    """The control of the test of the page: a section that is missing, and each thing that it should say."""
    method = Method("shrink", lambda deltas, *, share, times=3: None, elementwise=True)  # type: ignore[return-value, misc]
    section = "\n## `shrink`\n\n- Parameters: `share`, `times` (3).\n- Source: arXiv 1234.56789.\n"
    listed = PAGE.replace("`plain`, `top_k`,", "`plain`, `shrink`, `top_k`,")

    assert faults_of(listed.replace("\n## `ties`", f"{section}\n## `ties`"), METHODS | {"shrink": method}) == []
    for broken in (
        "",
        section.replace("`times`", "times"),
        section.replace("(3)", ""),
        section.replace("arXiv", ""),
    ):
        page = listed.replace("\n## `ties`", f"{broken}\n## `ties`")
        assert any("shrink" in fault for fault in faults_of(page, METHODS | {"shrink": method})), broken
    assert any("shrink" in fault for fault in faults_of(PAGE, METHODS | {"shrink": method}))
