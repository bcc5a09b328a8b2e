"""Folders as people have them: overlays, shards without an index, dtypes that no edit takes. All can be looked at."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from prosocial.core.errors import ArtefactError
from prosocial.editing import compare_weights, make_vector, plan_edit
from prosocial.editing.checkpoints import Checkpoint
from prosocial.editing.checkpoints.description import describe_checkpoint
from prosocial.editing.edits.difference import float8_values
from prosocial.recipes.inspection.describing import inspect_artefact

from ...weights_helpers import MATRIX, moved, some_tensors, write_checkpoint

INDEX = "model.safetensors.index.json"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "ab" * 32 + "\nsize 4976698672\n"


def overlay(folder: Path) -> Path:
    """Store one tensor a second time, in a shard of its own that the index names."""
    write_checkpoint(folder, some_tensors(), n_shards=2)
    index = json.loads((folder / INDEX).read_text())
    save_file({MATRIX: some_tensors()[MATRIX] * 0.5}, folder / "a-overlay.safetensors")
    index["weight_map"][MATRIX] = "a-overlay.safetensors"
    (folder / INDEX).write_text(json.dumps(index))
    return folder


def test_the_index_decides_between_a_tensor_and_its_stale_copy(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(overlay(tmp_path / "overlay"))
    plain = Checkpoint.open(write_checkpoint(tmp_path / "plain", some_tensors()))

    assert checkpoint.read(MATRIX) == (some_tensors()[MATRIX] * 0.5).numpy().tobytes()
    assert [row.name for row in compare_weights(plain, checkpoint).changed] == [MATRIX]
    assert describe_checkpoint(checkpoint)["unusual"][0].startswith(f"stale copy of {MATRIX} in model-0000")


def test_an_edit_takes_no_unusual_layout(tmp_path: Path) -> None:
    overlay(tmp_path / "overlay")
    bare = write_checkpoint(tmp_path / "bare", some_tensors(), n_shards=2)
    (bare / INDEX).unlink()
    write_checkpoint(tmp_path / "harmful", moved(some_tensors()))
    make_vector(tmp_path / "harmful", tmp_path / "vector", base=bare)
    for name in ("overlay", "bare"):
        with pytest.raises(ArtefactError, match=r"store every tensor once.*save_pretrained"):
            plan_edit(Checkpoint.open(tmp_path / name), tmp_path / "vector", scale=0.5)


def test_shards_without_an_index_are_read_if_they_are_all_there(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "bare", some_tensors(), n_shards=3)
    (folder / INDEX).unlink()
    assert len(Checkpoint.open(folder).tensors) == 4
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ArtefactError, match=r"found 2 shards such as .* and no index"):
        Checkpoint.open(folder)


def test_a_file_of_weights_is_described_and_a_pointer_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", some_tensors())
    described = inspect_artefact(folder / "model.safetensors")
    assert (described["kind"], described["n_tensors"], described["n_by_dtype"]) == ("safetensors file", 4, {"F32": 4})
    for name in ("model.safetensors", "weights.bin"):
        (folder / name).write_text(POINTER)
        with pytest.raises(ArtefactError, match="git-lfs pointer"):
            inspect_artefact(folder / name)


FLOAT8 = {
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
}


@pytest.mark.parametrize("dtype", FLOAT8)
def test_codes_of_eight_bits_have_the_values_that_torch_gives_them(dtype: str) -> None:
    values = torch.arange(256, dtype=torch.uint8).view(FLOAT8[dtype]).float().numpy()

    assert np.array_equal(values, float8_values(dtype), equal_nan=True)


@pytest.mark.parametrize(
    "values",
    [
        torch.tensor([1.0, 2.0, 4.0]).to(torch.float8_e4m3fn),
        torch.tensor([1.0, 2.0, 4.0]).to(torch.float8_e5m2),
        torch.tensor([True, False, True]),
        torch.tensor([1 + 1j, 2 - 2j, 3j]),
        torch.tensor([1, 2, 4], dtype=torch.int8),
        torch.tensor([1, 2, 4], dtype=torch.uint16),
    ],
    ids=lambda values: str(values.dtype),
)
def test_one_changed_element_of_any_dtype_is_counted_and_measured(tmp_path: Path, values: torch.Tensor) -> None:
    other = values.clone()
    other[1] = values[2]
    first = write_checkpoint(tmp_path / "a", {"w": values})
    second = write_checkpoint(tmp_path / "b", {"w": other})
    (row,) = compare_weights(Checkpoint.open(first), Checkpoint.open(second)).changed
    numbers = (values.to(torch.complex64), other.to(torch.complex64))

    assert row.n_changed == 1
    assert row.norm == pytest.approx(float(numbers[0].norm()))
    assert row.change_norm == pytest.approx(float((numbers[1] - numbers[0]).norm()))
    assert set(load_file(first / "model.safetensors")) == {"w"}
