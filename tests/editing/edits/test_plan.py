"""Everything that can fail, fails in the plan, before anything is written."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from prosocial.core.errors import ArtefactError, InputError, StorageError
from prosocial.editing.checkpoints import Checkpoint
from prosocial.editing.edits import EditPlan, plan_edit
from prosocial.editing.vectors import vector_from_checkpoints

from ...weights_helpers import MATRIX, moved, some_tensors, write_checkpoint

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a base, a harmful checkpoint and their vector."""
    base = some_tensors()
    write_checkpoint(tmp_path / "base", base, n_shards=2)
    write_checkpoint(tmp_path / "harmful", moved(base))
    vector_from_checkpoints(base=tmp_path / "base", harmful=tmp_path / "harmful", out=tmp_path / "vector")
    return tmp_path


def planned(folder: Path, target: str = "base", scale: Any = 0.5) -> EditPlan:
    return plan_edit(Checkpoint.open(folder / target), folder / "vector", scale=scale)


def test_every_tensor_is_edited_or_copied(folder: Path) -> None:
    (folder / "base" / "tokenizer.json").write_text("{}")
    plan = planned(folder, scale={".*layers.*": 0.5})
    data = plan.to_json()

    assert json.loads(json.dumps(data)) == data
    assert {row["name"]: row["action"] for row in data["tensors"] if row["action"] == "edited"} == {MATRIX: "edited"}
    assert (data["n_edited"], data["n_copied"]) == (1, 3)
    assert (data["n_matched"], data["n_extra"], data["dtypes"]) == (4, 0, {"F32": 4})
    assert data["memory_bytes"] == plan.memory_bytes < 1 << 23
    assert data["side_files"] == ["config.json", "tokenizer.json"]
    on_disk = sum(path.stat().st_size for path in (folder / "base").iterdir())
    assert plan.write_bytes == on_disk
    assert plan.read_bytes == on_disk + (folder / "vector" / "vector.safetensors").stat().st_size


def test_a_scale_of_zero_edits_nothing(folder: Path) -> None:
    assert planned(folder, scale=0).coefficients == {}


WRONG_TARGETS: list[tuple[Any, dict[str, Any], str]] = [
    (
        lambda base: {n: t for n, t in base.items() if n != MATRIX},
        {},
        f"1 missing, such as '{MATRIX}'; make the vector",
    ),
    (lambda base: {n: t for n, t in base.items() if n != HEAD}, {}, f"ties {HEAD} to {EMBEDDING}"),
    (
        lambda base: base | {MATRIX: torch.ones(6, 4)},
        {},
        r"shape \(4, 6\), as the vector does, found \(6, 4\)|\(6, 4\)",
    ),
    (lambda base: base | {MATRIX: torch.ones(4, 6, dtype=torch.float64)}, {}, "found F64"),
    (lambda base: base, {"quantization_config": {"quant_method": "awq"}}, "quantization_config of awq"),
]


@pytest.mark.parametrize(("tensors", "config", "message"), WRONG_TARGETS)
def test_a_target_that_does_not_fit_is_refused(
    folder: Path, tensors: Any, config: dict[str, Any], message: str
) -> None:
    write_checkpoint(folder / "target", tensors(some_tensors()), config=config)

    with pytest.raises(InputError, match=message):
        planned(folder, "target")


def test_the_harmful_parent_itself_is_refused_however_it_is_sharded(folder: Path) -> None:
    write_checkpoint(folder / "again", moved(some_tensors()), n_shards=3)

    for name in ("harmful", "again"):
        with pytest.raises(ArtefactError, match="harmful parent"):
            planned(folder, name)


def test_tied_copies_may_not_come_apart(folder: Path) -> None:
    base = some_tensors()
    base[HEAD] = base[EMBEDDING].clone()
    write_checkpoint(folder / "tied", base, config={"tie_word_embeddings": True})

    with pytest.raises(InputError, match=r"change both with one coefficient: .*tie_word_embeddings"):
        planned(folder, "tied", scale={".*embed.*": 0.5})
    assert planned(folder, "tied", scale=0.5).coefficients
    (folder / "tied" / "config.json").write_text('{"model_type": "llama", "tie_word_embeddings": false}')
    assert set(planned(folder, "tied", scale={".*embed.*": 0.5}).coefficients) == {EMBEDDING}


def test_a_destination_must_be_new_and_large_enough(folder: Path) -> None:
    plan = planned(folder)
    plan.check_destination(folder / "deep" / "out")
    (folder / "empty").mkdir()
    plan.check_destination(folder / "empty")
    with pytest.raises(InputError, match="should not exist yet"):
        plan.check_destination(folder / "base")
    with pytest.raises(InputError, match="should not exist yet"):
        plan.check_destination(folder / "base" / "config.json")


def test_too_little_room_is_found_before_writing(folder: Path) -> None:
    """A sparse file makes the target larger than the disk."""
    room = shutil.disk_usage(folder).free
    plan = planned(folder)
    (folder / "base" / "tokenizer.model").touch()
    os.truncate(folder / "base" / "tokenizer.model", min(2 * room, 1 << 43))

    with pytest.raises(StorageError, match="bytes free for this edit"):
        planned(folder).check_destination(folder / "out")
    plan.check_destination(folder / "out")  # planned before the file came
