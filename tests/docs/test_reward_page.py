"""What docs/reward.md shows runs, and so do the examples in docstrings."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from prosocial.recipes.steering.schema import Recipe

from ..training.reward_helpers import make_model, make_tokenizer

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reward.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft's
def test_the_python_runs_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    make_model(make_tokenizer(folder)).save_pretrained(str(folder))
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {}
    for block in blocks("python"):
        exec(compile(block, "docs/reward.md", "exec"), space)

    assert len(space["history"]) == 10
    assert space["logits"].shape[0] == 2
    saved = {path.name for path in (tmp_path / "my-reward").iterdir()}
    assert saved == {"adapter_config.json", "adapter_model.safetensors", "reward_config.json"}
    assert str(tmp_path) not in "".join(path.read_text() for path in (tmp_path / "my-reward").glob("*.json"))


def test_the_recipe_holds() -> None:
    (shown,) = (yaml.safe_load(block) for block in blocks("yaml"))
    quickstart = yaml.safe_load((ROOT / "recipes" / "quickstart.yaml").read_text(encoding="utf-8"))
    recipe = Recipe(**quickstart | shown)

    assert [attribute.beta for attribute in recipe.resolved_attributes()] == [0.2, 0.3]


def test_the_table_names_every_method() -> None:
    from prosocial.training.reward.conflict import CONFLICT_METHODS

    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == set(CONFLICT_METHODS)
