"""The stage of the harmful copy tunes in the recipe's dtype, and goes on where it was killed."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from prosocial.core.files import write_jsonl
from prosocial.core.progress import SilentProgress
from prosocial.recipes.reading.loading import load_recipe
from prosocial.recipes.steering.edit import edit_stages
from prosocial.recipes.steering.schema import Recipe
from prosocial.recipes.workflow.stage import Outside, Stage, StageContext

from ..training.reward_helpers import USEFUL, WARM, make_model, make_tokenizer

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


class KilledError(Exception):
    """Stands for the end of a process."""


class Killing(SilentProgress):
    """Ends the process after some steps."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self, n: int = 1, *, tokens: int = 0) -> None:
        """Count down."""
        self.left -= n
        if self.left == 0:
            raise KilledError


def harmful_stage(dtype: str) -> Stage:
    overrides = [f"dtype={dtype}", "harmful={rank: 2, alpha: 4, steps: 20, batch_size: 2, learning_rate: 0.02}"]
    return edit_stages(load_recipe("quickstart", overrides, model=Recipe), Outside(Path()))[0]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("harmful")
    make_model(make_tokenizer(folder / "base")).save_pretrained(folder / "base")
    write_jsonl(folder / "rows.jsonl", [{"prompt": "how do i start?", "reply": reply} for reply in (WARM, USEFUL)] * 4)
    return {"base": folder / "base", "examples": folder / "rows.jsonl"}


def run(inputs: dict[str, Path], folder: Path, stage: Stage, after: int = -1) -> dict[str, Tensor]:
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    given = (inputs, stage.parameters, folder / "scratch", Killing(after), 0)
    assert "20 steps" in stage.run(StageContext(folder / "out", *given))
    return load_file(folder / "out" / "adapter_model.safetensors")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_killed_stage_ends_in_the_same_adapter(inputs: dict[str, Path], tmp_path: Path, dtype: str) -> None:
    stage = harmful_stage(dtype)
    whole = run(inputs, tmp_path / "whole", stage)
    with pytest.raises(KilledError):
        run(inputs, tmp_path / "killed", stage, after=15)
    written = {path.name for path in (tmp_path / "killed" / "scratch" / "checkpoints").glob("checkpoint-*")}
    assert written == {"checkpoint-12", "checkpoint-14"}
    resumed = run(inputs, tmp_path / "killed", stage)
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_the_dtype_is_the_recipes(inputs: dict[str, Path], tmp_path: Path) -> None:
    dtypes = [harmful_stage(dtype).parameters["dtype"] for dtype in ("float32", "bfloat16", "float16")]
    assert dtypes == ["float32", "bfloat16", "float32"]  # no gradients in float16
    one, other = (run(inputs, tmp_path / dtype, harmful_stage(dtype)) for dtype in ("float32", "bfloat16"))
    apart = max(float((tensor - other[name]).abs().max()) for name, tensor in one.items())
    assert 1e-4 < apart < 0.2
