"""What differs between two checkpoints is found tensor by tensor, however they are sharded."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prosocial.cli.main import main
from prosocial.editing.checkpoints import Checkpoint
from prosocial.editing.edits import CheckpointDifference, compare_weights
from prosocial.editing.edits.difference import layer_of

from ...weights_helpers import MATRIX, moved, some_tensors, write_checkpoint

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def difference(folder: Path, first: Any, second: Any, **second_options: Any) -> CheckpointDifference:
    write_checkpoint(folder / "first", first)
    write_checkpoint(folder / "second", second, **second_options)
    return compare_weights(Checkpoint.open(folder / "first"), Checkpoint.open(folder / "second"))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equal_weights_are_the_same_however_they_are_sharded(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = some_tensors(dtype=dtype)
    found = difference(tmp_path, tensors, tensors, n_shards=3)

    assert found.same and found.n_same == 4 and found.layers == {}
    assert Checkpoint.open(tmp_path / "first").fingerprint() == Checkpoint.open(tmp_path / "second").fingerprint()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_numbers_are_those_of_torch(tmp_path: Path, dtype: torch.dtype) -> None:
    """A tensor of several pieces, changed in every third element."""
    first = {MATRIX: torch.randn(700, 801).to(dtype), "model.norm.weight": torch.ones(3, dtype=dtype)}
    second = {name: tensor.clone() for name, tensor in first.items()}
    second[MATRIX].flatten()[::3] += 0.25
    found = difference(tmp_path, first, second)
    change = second[MATRIX].double() - first[MATRIX].double()
    (row,) = found.changed

    assert (row.name, found.n_same, found.same) == (MATRIX, 1, False)
    assert row.n_changed == int((second[MATRIX] != first[MATRIX]).sum()) and row.n_elements == change.numel()
    assert row.relative_change == pytest.approx(float(change.norm() / first[MATRIX].double().norm()))
    assert row.max_abs == float(change.abs().max())
    assert found.layers == {"model.layers.0": pytest.approx(row.relative_change)}


def test_one_bit_is_found_and_one_more_tensor_and_another_shape(tmp_path: Path) -> None:
    first = some_tensors(dtype=torch.bfloat16)
    second = {name: tensor.clone() for name, tensor in first.items()}
    second[MATRIX].view(torch.int16)[0, 0] ^= 1
    second["model.norm.weight"] = torch.ones(5, dtype=torch.bfloat16)
    second["extra.weight"] = second.pop("lm_head.weight")
    found = difference(tmp_path, first, second, config={"rope_theta": 3})

    assert [(row.name, row.n_changed) for row in found.changed] == [(MATRIX, 1)]
    assert (found.only_first, found.only_second) == (("lm_head.weight",), ("extra.weight",))
    assert found.reshaped == (("model.norm.weight", (4,), (5,)),)
    assert (found.n_same, found.config) == (1, ("rope_theta",))


def test_another_dtype_differs_even_where_no_value_does(tmp_path: Path) -> None:
    halves = some_tensors(dtype=torch.bfloat16)
    found = difference(tmp_path, halves, {name: tensor.float() for name, tensor in halves.items()})

    assert {(row.dtypes, row.n_changed, row.change_norm) for row in found.changed} == {(("BF16", "F32"), 0, 0.0)}
    assert not found.same and len(found.changed) == 4


def test_what_has_no_finite_norm_is_unknown_and_still_plain_json(tmp_path: Path) -> None:
    first = some_tensors() | {"buffer": torch.arange(6), "mask": torch.tensor([True, False])}
    first["code.weight"] = torch.ones(4).to(torch.float8_e4m3fn)
    second = {name: tensor.clone() for name, tensor in first.items()}
    second[MATRIX][0, 0] = float("inf")
    second["model.norm.weight"][0] = float("nan")
    second["buffer"][2] += 3
    second["mask"][1] = True
    second["code.weight"] = (torch.ones(4) * 2).to(torch.float8_e4m3fn)
    found = difference(tmp_path, first, second)
    rows = {row.name: row for row in found.changed}

    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["n_changed"] == 5
    assert rows[MATRIX].n_changed == 1 and rows[MATRIX].relative_change is None
    assert rows["model.norm.weight"].max_abs is None
    assert (rows["buffer"].max_abs, rows["mask"].n_changed) == (3.0, 1)
    assert (rows["code.weight"].n_changed, rows["code.weight"].max_abs) == (4, 1.0)
    again = compare_weights(Checkpoint.open(tmp_path / "second"), Checkpoint.open(tmp_path / "second"))
    assert again.same  # NaN of one bit pattern is the same NaN


@given(seed=st.integers(0, 2**16), step=st.sampled_from([0.0, 1e-12, 1e-8, 1e-6]) | st.floats(0, 1))
def test_the_change_is_as_long_both_ways(tmp_path_factory: pytest.TempPathFactory, seed: int, step: float) -> None:
    folder = tmp_path_factory.mktemp("d")
    first = some_tensors(seed)
    there = difference(folder, first, moved(first, step))
    back = compare_weights(Checkpoint.open(folder / "second"), Checkpoint.open(folder / "first"))

    assert {(row.name, row.change_norm, row.max_abs, row.n_changed) for row in there.changed} == {
        (row.name, row.change_norm, row.max_abs, row.n_changed) for row in back.changed
    }
    after = moved(first, step)
    changed = {name: int((after[name] != first[name]).sum()) for name in first}
    assert {row.name: row.n_changed for row in there.changed} == {name: n for name, n in changed.items() if n}
    assert there.same == back.same == (sum(changed.values()) == 0)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("transformer.h.11.attn.c_attn.weight", "transformer.h.11"),
        ("model.layers.2.mlp.experts.7.up_proj.weight", "model.layers.2"),
        ("model.norm.weight", "model.norm"),
        ("bias", "bias"),
    ],
)
def test_layers_are_told_from_names(name: str, layer: str) -> None:
    assert layer_of(name) == layer


def test_the_command_says_it_with_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    base = some_tensors()
    for name, tensors in (("a", base), ("b", base), ("c", base | {MATRIX: base[MATRIX] + 0.5})):
        write_checkpoint(tmp_path / name, tensors)
    a, b, c = (str(tmp_path / name) for name in "abc")

    assert main(["diff", a, b]) == 0
    assert "bit for bit: 4 tensors equal" in capsys.readouterr().out
    assert main(["diff", a, c]) == 1
    assert MATRIX in capsys.readouterr().out
    assert main(["diff", a, c, "--json"]) == 1
    value = json.loads(capsys.readouterr().out)
    assert value["same"] is False and value["tensors"][0]["max_abs"] == pytest.approx(0.5)
    assert main(["diff", a, str(tmp_path / "no" / "such")]) == 2
    assert "no such folder" in capsys.readouterr().err
