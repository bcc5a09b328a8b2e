"""Whatever an earlier version offered by name, this one still takes: imports, commands and options, recipe keys."""

import copy
import importlib
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from .running import outcome

GOLDEN = Path(__file__).parent
VERSIONS = sorted(path.parent.name for path in GOLDEN.glob("*/imports.json"))
NEEDS = {"prosocial.verify.inspect_ai.registry": "inspect_ai"}  # what is in no environment for work
# These left the wheel with 0.2.0, as docs/migration.md says: they belong to the tests.
REMOVED = {"prosocial.verify.hub_fixture", "prosocial.verify.loopback_hub"}
# Taken, and no plan depends on them: the title is shown only, and `decoding` sets both numbers of the head.
# Without the dtype it is `auto`, which is the same where the processor computes in bfloat16.
WITHOUT_EFFECT = {"title", "head.inverse_beta", "head.plausible_k", "dtype"}
Keys = tuple[str | int, ...]


def _listed(name: str) -> list[tuple[str, str, Any]]:
    """Return version, name and what it holds, for each entry of a list in every golden folder."""
    lists = {version: json.loads((GOLDEN / version / name).read_text(encoding="utf-8")) for version in VERSIONS}
    return [(version, key, held) for version, listed in lists.items() for key, held in listed.items()]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # a path on its way out may say so
@pytest.mark.parametrize(
    ("version", "module", "names"), [row for row in _listed("imports.json") if row[1] not in REMOVED]
)
def test_an_import_still_works(version: str, module: str, names: dict[str, str]) -> None:
    """Each name is there, and what was one object under two paths still is."""
    assert find_spec(module) is not None
    if module in NEEDS:
        pytest.importorskip(NEEDS[module])
    imported = importlib.import_module(module)

    assert [name for name in names if getattr(imported, name, None) is None] == []
    firsts = {name: getattr(importlib.import_module(first), name) for name, first in names.items()}
    assert [name for name, first in firsts.items() if getattr(imported, name) is not first] == []


def _typed(options: dict[str, str]) -> list[str]:
    """Return the options as words, with a value where they take one."""
    forms = {"flag": "{}", "value": "{}=x"}
    return [
        forms[kind].format(name) if name.startswith("--") else name + "x" * (kind == "value")
        for name, kind in options.items()
    ]


@pytest.mark.parametrize(("version", "words", "options"), _listed("commands.json"))
def test_a_command_still_takes_its_options(version: str, words: str, options: dict[str, str]) -> None:
    """`--help` comes first: the words after it are looked up, and nothing is done."""
    code, shown, errors = outcome(*words.split(), "--help", *_typed(options))

    assert (code, errors) == (0, "")
    assert f"prosocial {words}".strip() in shown


@pytest.mark.parametrize("option", ["--scal=x", "--plan=x", "--subtract", "-q"])
def test_an_option_that_is_none_or_takes_another_value_is_refused(option: str) -> None:
    """The control of the test before."""
    assert outcome("edit", "--help", option)[0] == 2


@pytest.mark.parametrize(("version", "pipeline", "keys"), _listed("recipe_keys.json"))
def test_each_recipe_key_is_still_read(
    version: str, pipeline: str, keys: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recipes with every key are planned, and without one of them another plan comes out, or none."""
    monkeypatch.chdir(GOLDEN / version)  # the recipes name their data from there
    recipes = [recipe for recipe in _recipes(version) if recipe.get("pipeline", "steering") == pipeline]
    plans = [_plan(recipe, tmp_path) for recipe in recipes]

    assert [errors for code, _, errors in plans if code != 0] == []
    assert [key for key in keys if not any(_places(recipe, key) for recipe in recipes)] == []
    unread = [
        key
        for recipe, (code, planned, _) in zip(recipes, plans, strict=True)
        for key in keys
        for place in _places(recipe, key)[:1]
        if _plan(_without(recipe, place), tmp_path)[:2] == (code, planned)
    ]
    assert set(unread) <= WITHOUT_EFFECT


def _recipes(version: str) -> list[dict[str, Any]]:
    return [yaml.safe_load(path.read_text("utf-8")) for path in sorted((GOLDEN / version / "recipes").glob("*.yaml"))]


def _plan(recipe: dict[str, Any], folder: Path) -> tuple[int, str, str]:
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return outcome("run", file, "-o", folder / "run", "--dry-run", "--json")


def _places(value: Any, key: str) -> list[Keys]:
    """Return where a dotted key stands in a recipe; `*` is any name or place in a list."""
    return list(_found(value, key.split("."), ()))


def _found(value: Any, parts: list[str], place: Keys) -> Iterator[Keys]:
    if not parts:
        yield place
    elif isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, inner in items:
            if parts[0] in ("*", name):
                yield from _found(inner, parts[1:], (*place, name))


def _without(recipe: dict[str, Any], place: Keys) -> dict[str, Any]:
    changed: Any = copy.deepcopy(recipe)
    inner = changed
    for name in place[:-1]:
        inner = inner[name]
    del inner[place[-1]]
    return dict(changed)
