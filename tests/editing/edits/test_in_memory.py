"""An edit in memory is the edit of the files, bit for bit, and leaves no trace."""

from pathlib import Path
from typing import Any

import pytest
import torch

from prosocial.core.errors import InputError
from prosocial.editing.checkpoints import Checkpoint, load_model
from prosocial.editing.edits import InMemoryEdit, apply_edit, plan_edit
from prosocial.editing.vectors import vector_from_checkpoints

from ...weights_helpers import fine_tuned, pico

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
SCALES: list[Any] = [0.7, {r".*mlp.*": 0.3, r".*": 1.1}, {r".*layers\.1\..*|.*h\.1\..*": 2.0}]


def parents(folder: Path, kind: str, dtype: torch.dtype) -> Checkpoint:
    """Save a base and a fine-tune of it, and make their vector."""
    model = pico(kind, dtype)
    model.save_pretrained(folder / "base", max_shard_size="15KB")
    fine_tuned(model, step=0.05).save_pretrained(folder / "harmful")
    vector_from_checkpoints(base=folder / "base", harmful=folder / "harmful", out=folder / "vector")
    return Checkpoint.open(folder / "base")


def bits(model: Any) -> dict[str, bytes]:
    return {name: bytes(tensor.contiguous().view(torch.uint8).numpy()) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(("kind", "dtype"), [("llama", "BF16"), ("qwen3", "F16"), ("gpt2", "F32")])
@pytest.mark.parametrize("loaded", ["as stored", "fp32"])
def test_it_is_the_edit_of_the_files_and_restores_exactly(tmp_path: Path, kind: str, dtype: str, loaded: str) -> None:
    target = parents(tmp_path, kind, DTYPES[dtype])
    held = torch.float32 if loaded == "fp32" else DTYPES[dtype]
    model = load_model(target.folder, dtype=held)
    before, edit = bits(model), InMemoryEdit(model, target)

    for number, scale in enumerate(SCALES):
        plan = plan_edit(target, tmp_path / "vector", scale=scale)
        result = edit.apply(plan)
        record = apply_edit(plan, tmp_path / f"edited{number}")

        assert bits(model) == bits(load_model(tmp_path / f"edited{number}", dtype=held)) != before
        assert result.fingerprint == record.result.fingerprint
        assert result.inner_product == pytest.approx(record.result.inner_product)
        assert result.inner_product < 0
    edit.restore()

    assert bits(model) == before


def test_scale_zero_leaves_the_base(tmp_path: Path) -> None:
    target = parents(tmp_path, "llama", torch.bfloat16)
    model = load_model(target.folder)
    before, edit = bits(model), InMemoryEdit(model, target)
    edit.apply(plan_edit(target, tmp_path / "vector", scale=1.0))

    assert edit.apply(plan_edit(target, tmp_path / "vector", scale=0.0)).fingerprint == target.fingerprint()
    assert bits(model) == before


def test_a_model_that_is_not_the_checkpoint_is_refused_untouched(tmp_path: Path) -> None:
    target = parents(tmp_path, "llama", torch.float32)
    plan = plan_edit(target, tmp_path / "vector", scale=1.0)
    rounded, other = load_model(target.folder, dtype=torch.bfloat16), load_model(tmp_path / "harmful")
    for model in (rounded, other):
        before = bits(model)
        with pytest.raises(InputError, match="should have the same values in memory"):
            InMemoryEdit(model, target).apply(plan)
        assert bits(model) == before


def test_a_layout_of_another_name_is_refused(tmp_path: Path) -> None:
    target = parents(tmp_path, "llama", torch.float32)
    model = torch.nn.Linear(2, 2)
    model.base_model_prefix = "model"  # type: ignore[assignment]
    with pytest.raises(InputError, match="has another layout"):
        InMemoryEdit(model, target).apply(plan_edit(target, tmp_path / "vector", scale=1.0))


def test_an_edit_that_overflows_is_refused_and_the_model_restored(tmp_path: Path) -> None:
    target = parents(tmp_path, "llama", torch.float16)
    model = load_model(target.folder, dtype=torch.float16)
    before, edit = bits(model), InMemoryEdit(model, target)
    with pytest.raises(InputError, match="should stay finite"):
        edit.apply(plan_edit(target, tmp_path / "vector", scale=1e9))

    assert bits(model) == before
