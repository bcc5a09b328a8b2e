"""A recipe is read into one model, and whatever is wrong with it is one line that names the place."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_validator

from prosocial.core.errors import InputError, UnknownNameError
from prosocial.core.yaml_values import read_yaml
from prosocial.recipes.reading.loading import builtin_recipes, load_recipe
from prosocial.recipes.reading.overrides import apply_overrides, parse_override


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Gate(Section):
    rank: int = Field(default=16, ge=1)
    learning_rate: float = 1e-3


class Lab(Section):
    kind: Literal["lab"]
    n_topics: int = 8


class Folder(Section):
    kind: Literal["folder"]
    path: str


class Recipe(Section):
    seed: int = 0
    gate: Gate = Gate()
    source: Annotated[Lab | Folder, Field(discriminator="kind")] = Lab(kind="lab")
    configs: dict[str, Gate] = {}
    scales: list[float] = []
    steps: int

    @field_validator("scales")
    @classmethod
    def _not_negative(cls, value: list[float]) -> list[float]:
        if value and min(value) < 0:
            raise ValueError(f"no scale may be negative, found {min(value)}")
        return value


Load = Callable[..., Recipe]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str, *overrides: str) -> Recipe:
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return load_recipe(path, overrides, model=Recipe)

    return load


def test_values_come_from_the_file_then_from_overrides_in_order(load: Load) -> None:
    recipe = load("steps: 5\ngate: {rank: 4}", "gate.rank=8", "gate.learning_rate=1e-4", "gate.rank=9", "seed=7")

    assert recipe.gate == Gate(rank=9, learning_rate=1e-4)
    assert (recipe.steps, recipe.seed) == (5, 7)


def test_overrides_reach_lists_and_sections_that_the_file_leaves_out(load: Load) -> None:
    recipe = load("steps: 1\nscales: [1, 2]\ngate:", "scales.1=0.5", "configs.game.rank=2", "gate.rank=3")

    assert recipe.scales == [1.0, 0.5]
    assert recipe.configs["game"].rank == 2
    assert recipe.gate.rank == 3


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (
            "steps: 1\ngate: {rnak: 4}",
            (),
            r"unknown key gate\.rnak \(did you mean rank\?\); known are learning_rate, rank",
        ),
        ("steps: 1", ("gat.rank=4",), r"unknown key gat \(did you mean gate\?\); known are configs, gate, scales"),
        ("steps: 1\nsource: {kind: folder, pth: x}", (), r"source\.path is missing"),
        ("steps: 1\nsource: {kind: folder, path: x, pth: x}", (), r"unknown key source\.pth.*path"),
        (
            "steps: 1\nsource: {kind: lab, path: x}",
            (),
            r"source\.path cannot be combined with the other keys of its section",
        ),
        ("steps: 1\nscales: [-1]", (), r"^recipe \S+: scales: no scale may be negative, found -1\.0$"),
        ("steps: 1\nsource: {kind: labb}", (), r"source: .*'lab', 'folder'"),
        ("steps: 1\nconfigs: {game: {rank: x}}", (), r"configs\.game\.rank: .*integer.*found 'x'"),
        ("steps: 1\nconfigs: {game: {rang: 1}}", (), r"unknown key configs\.game\.rang \(did you mean rank\?\)"),
        ("steps: 1\nscales: [1, two]", (), r"scales\.1: .*number.*found 'two'"),
        ("steps: 1", ("gate.rank=0",), r"gate\.rank: .*greater than or equal to 1, found 0"),
        ("gate: {rank: 0}", (), r"\(and 1 more\)"),
        ("seed: 1", (), "steps is missing"),
        ("- 1", (), "should be a mapping"),
        ("", (), "should be a mapping"),
        ("steps: [1", (), r"line 1 column \d+ should be YAML"),
        ("steps: 1\nsteps: 2", (), "line 2 column 1 should be YAML: the key 'steps' occurs twice"),
        ('name: "\\ud800"', (), "line 1 column 7 should be YAML: a text should be valid Unicode"),
        ("steps: !!python/object/apply:os.system [ls]", (), "should be YAML: could not determine a constructor"),
        ("steps: \x07", (), "should be YAML"),
        ("steps: 1", ("gate.rank",), "should look like a.b=value"),
        ("steps: 1", ("=4",), "should look like a.b=value"),
        ("steps: 1", ("gate..rank=4",), "should look like a.b=value"),
        ("steps: 1\nseed: 3", ("seed.x=4",), "override seed.x: seed should be a section or a list, found 3"),
        ("steps: 1\nscales: [1]", ("scales.1=4",), "scales is a list, its index should be 0 to 0, found '1'"),
        ("steps: 1", ("gate.rank=[",), "the value of override 'gate.rank'"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_dotted_path(
    load: Load, text: str, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(text, *overrides)

    assert "\n" not in str(caught.value)


def test_a_missing_file_and_an_unknown_name_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="should be an existing file; the built-in"):
        load_recipe(tmp_path / "none.yaml", model=Recipe)
    with pytest.raises(UnknownNameError, match="unknown recipe 'no-such-recipe': known are"):
        load_recipe("no-such-recipe", model=Recipe)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        load_recipe(tmp_path / "r.yaml", model=Recipe)


class Anything(BaseModel):
    model_config = ConfigDict(extra="allow")


@pytest.mark.parametrize("name", builtin_recipes())
def test_every_built_in_recipe_is_found_by_name(name: str) -> None:
    assert load_recipe(name, model=Anything).model_extra


def test_overrides_leave_the_recipe_they_are_given_alone() -> None:
    recipe = {"a": {"b": [1]}}
    changed = apply_overrides(recipe, ["a.b.0=2", "a.c=3"])

    assert changed == {"a": {"b": [2], "c": 3}}
    assert recipe == {"a": {"b": [1]}}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_that_python_prints_is_a_number_in_a_recipe(value: float) -> None:
    assert parse_override(f"a={value!r}") == (("a",), value)


def test_merge_keys_and_plain_words_read_as_in_yaml() -> None:
    text = "base: &b {x: 1}\nmore:\n  <<: *b\n  y: e5\n"

    assert read_yaml(text, where="here")["more"] == {"x": 1, "y": "e5"}


def test_a_key_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(InputError, match="should be YAML"):
        read_yaml("{[a]: 1}", where="here")
