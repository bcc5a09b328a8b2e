"""The page of the recipe's fields is what the settings say, and the recipes on the pages hold."""

import runpy
from typing import Any

import pytest
import yaml

from prosocial.recipes.cosalign.schema import CosalignRecipe
from prosocial.recipes.steering.schema import Recipe

from .pages import PAGES, ROOT, blocks, name_of

SCRIPT = ROOT / ".ci" / "write_recipe_page.py"
RECIPES = [
    pytest.param(content, id=f"{name_of(page)}:{block.line}")
    for page in PAGES
    for block in blocks(page)
    if block.language == "yaml" and "name" in (content := yaml.safe_load(block.text))
]


def test_the_page_is_current() -> None:
    page = (ROOT / "docs" / "reference" / "recipe.md").read_text(encoding="utf-8")

    assert page == runpy.run_path(str(SCRIPT))["page"](), "run: python .ci/write_recipe_page.py"


def test_every_field_has_a_meaning() -> None:
    rows = [line for line in runpy.run_path(str(SCRIPT))["page"]().splitlines() if line.startswith("| `")]

    assert len(rows) > 150 and [row for row in rows if row.endswith("|  |")] == []


def test_there_are_recipes_on_the_pages() -> None:
    assert len(RECIPES) >= 2


@pytest.mark.parametrize("content", RECIPES)
def test_a_recipe_on_a_page_holds(content: dict[str, Any]) -> None:
    model = CosalignRecipe if content.get("pipeline") == "cosalign" else Recipe

    assert model.model_validate(content).name == content["name"]
