"""Undo gives back the bytes of what was edited, or nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch

from prosocial.core.errors import ArtefactError, FingerprintError, InputError
from prosocial.editing.checkpoints import Checkpoint
from prosocial.editing.edits import EditRecord, Rounding, apply_edit, plan_edit, undo_edit
from prosocial.editing.vectors import vector_from_checkpoints

from ...weights_helpers import MATRIX, fine_tuned, moved, pico, some_tensors, write_checkpoint


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def edited(folder: Path, target: str, out: str, **options: Any) -> EditRecord:
    plan = plan_edit(Checkpoint.open(folder / target), folder / "vector", scale=options.pop("scale", 0.6))
    return apply_edit(plan, folder / out, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sharded base, its vector, and an edit of the base with a patch."""
    base = some_tensors(dtype=torch.bfloat16) | {"model.step": torch.arange(3)}
    write_checkpoint(tmp_path / "base", base, n_shards=2)
    (tmp_path / "base" / "tokenizer.json").write_text("{}")
    harmful = moved({name: tensor for name, tensor in base.items() if tensor.is_floating_point()})
    write_checkpoint(tmp_path / "harmful", base | harmful)
    vector_from_checkpoints(base=tmp_path / "base", harmful=tmp_path / "harmful", out=tmp_path / "vector")
    edited(tmp_path, "base", "edited", patch=tmp_path / "edit.patch")
    return tmp_path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("kind", "shard"), [("llama", "15KB"), ("llama", "1GB"), ("qwen3", "15KB")])
def test_the_bytes_come_back(tmp_path: Path, kind: str, shard: str, dtype: torch.dtype) -> None:
    """Tied and untied, one file and many, from the base and from the patch, rounded either way."""
    model = pico(kind, dtype)
    model.save_pretrained(tmp_path / "base", max_shard_size=shard)
    fine_tuned(model).save_pretrained(tmp_path / "harmful")
    vector_from_checkpoints(base=tmp_path / "base", harmful=tmp_path / "harmful", out=tmp_path / "vector")
    record = edited(tmp_path, "base", "edited", patch=tmp_path / "p", rounding=Rounding("stochastic", 5))
    before = contents(tmp_path / "base")

    assert contents(tmp_path / "edited") != before
    assert undo_edit(tmp_path / "edited", tmp_path / "a", base=tmp_path / "base") == record.base.fingerprint
    undo_edit(tmp_path / "edited", tmp_path / "b", patch=tmp_path / "p")
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == before


def test_a_base_that_is_sharded_otherwise_will_do(folder: Path) -> None:
    base = some_tensors(dtype=torch.bfloat16) | {"model.step": torch.arange(3)}
    write_checkpoint(folder / "whole", base)
    undo_edit(folder / "edited", folder / "restored", base=folder / "whole")

    assert contents(folder / "restored") == contents(folder / "base")


def test_an_edit_of_an_edit_goes_back_one_step(folder: Path) -> None:
    edited(folder, "edited", "twice", scale={MATRIX: 0.3}, patch=folder / "second.patch")
    undo_edit(folder / "twice", folder / "once", patch=folder / "second.patch")
    undo_edit(folder / "once", folder / "restored", patch=folder / "edit.patch")

    assert contents(folder / "once") == contents(folder / "edited")
    assert contents(folder / "restored") == contents(folder / "base")


def test_a_patch_is_smaller_than_what_it_restores(tmp_path: Path) -> None:
    base = {MATRIX: torch.randn(2000, 1500).bfloat16()}  # more than one block
    write_checkpoint(tmp_path / "base", base)
    write_checkpoint(tmp_path / "harmful", moved(base))
    vector_from_checkpoints(base=tmp_path / "base", harmful=tmp_path / "harmful", out=tmp_path / "vector")
    edited(tmp_path, "base", "edited", scale=0.1, patch=tmp_path / "p")
    undo_edit(tmp_path / "edited", tmp_path / "restored", patch=tmp_path / "p")

    assert contents(tmp_path / "restored") == contents(tmp_path / "base")
    assert (tmp_path / "p").stat().st_size < 0.8 * (tmp_path / "base" / "model.safetensors").stat().st_size


def test_what_does_not_belong_is_refused_and_nothing_is_left(folder: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    edited(folder, "base", "other", scale=0.2)
    with pytest.raises(ArtefactError, match="should belong to this edit"):
        undo_edit(folder / "other", folder / "restored", patch=folder / "edit.patch")
    with pytest.raises(FingerprintError, match="the base of"):
        undo_edit(folder / "edited", folder / "restored", base=folder / "harmful")
    with pytest.raises(ArtefactError, match="should be a patch of schema"):
        undo_edit(folder / "edited", folder / "restored", patch=next((folder / "base").glob("*.safetensors")))
    with pytest.raises(InputError, match=r"--base or --patch"):
        undo_edit(folder / "edited", folder / "restored")
    with pytest.raises(InputError, match="should not exist yet"):
        edited(folder, "base", "third", patch=folder / "edit.patch")
    assert sorted(path.name for path in folder.iterdir()) == sorted([*before, "other"])


@pytest.mark.parametrize("damaged", ["edited", "patch", "side file", "path"])
def test_damage_is_found(folder: Path, damaged: str) -> None:
    if damaged == "side file":
        (folder / "edited" / "tokenizer.json").write_text("{ }")
    elif damaged == "path":
        record = folder / "edited" / "edit_record.json"
        record.write_text(record.read_text().replace('"tokenizer.json"', '"../base/tokenizer.json"'))
    else:
        file = folder / "edit.patch" if damaged == "patch" else next((folder / "edited").glob("*.safetensors"))
        raw = bytearray(file.read_bytes())
        raw[-1] ^= 1
        file.write_bytes(raw)

    with pytest.raises((ArtefactError, FingerprintError)):
        undo_edit(folder / "edited", folder / "restored", patch=folder / "edit.patch")
    assert not (folder / "restored").exists()
    assert not list(folder.glob(".restored*"))
