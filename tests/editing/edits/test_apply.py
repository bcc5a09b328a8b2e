"""An edit is the arithmetic of its record, to the bit, in the layout of its target."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from prosocial.core.errors import ArtefactError, InputError
from prosocial.core.files import sha256_file
from prosocial.editing.checkpoints import Checkpoint, load_model
from prosocial.editing.checkpoints.fingerprint import fingerprint
from prosocial.editing.checkpoints.tensors import read_fp32
from prosocial.editing.edits import EditRecord, apply_edit, plan_edit, read_record
from prosocial.editing.edits.piece import PieceEdit
from prosocial.editing.edits.realised import Realised, require_subtraction
from prosocial.editing.vectors import HarmVector, vector_from_checkpoints
from prosocial.editing.vectors.folder import VectorFolder

from ...weights_helpers import MATRIX, fine_tuned, moved, pico, some_tensors, write_checkpoint

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def edited(folder: Path, target: Path, scale: Any, *, vector: str = "vector", out: str = "out") -> EditRecord:
    return apply_edit(plan_edit(Checkpoint.open(target), folder / vector, scale=scale), folder / out)


def models(folder: Path, kind: str, dtype: torch.dtype) -> Path:
    """Save a base and a harmful fine-tune with transformers, sharded differently, and make their vector."""
    model = pico(kind, dtype)
    model.save_pretrained(folder / "base", max_shard_size="15KB")
    fine_tuned(model).save_pretrained(folder / "harmful", max_shard_size="40KB")
    (folder / "base" / "tokenizer.json").write_text("{}")
    vector_from_checkpoints(base=folder / "base", harmful=folder / "harmful", out=folder / "vector")
    return folder / "base"


def expected_bytes(target: torch.Tensor, delta: torch.Tensor, coefficient: float) -> bytes:
    """The arithmetic of an edit in numpy; bf16 is rounded by hand on the bits."""
    product = np.float32(coefficient) * delta.numpy()
    difference = np.subtract(target.float().numpy(), product, dtype=np.float32)
    if target.dtype == torch.float32:
        return difference.tobytes()
    if target.dtype == torch.float16:
        return difference.astype(np.float16).tobytes()
    bits = difference.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return rounded.astype(np.uint16).tobytes()


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_bit_follows_the_arithmetic(tmp_path: Path, kind: str, dtype: str) -> None:
    base = models(tmp_path, kind, DTYPES[dtype])
    record = edited(tmp_path, base, 0.6)
    target, out, vector = Checkpoint.open(base), Checkpoint.open(tmp_path / "out"), HarmVector.open(tmp_path / "vector")

    assert len(target.headers) > 1
    assert set(vector.names) == set(target.tensors)
    for name in target.tensors:
        before = read_fp32(target, name).to(DTYPES[dtype])
        assert out.read(name) == expected_bytes(before, vector.delta(name), 0.6)
    assert record.result.fingerprint == out.fingerprint() != target.fingerprint() == record.base.fingerprint
    assert record.result.inner_product < 0
    load_model(tmp_path / "out")


def test_the_layout_is_the_targets(tmp_path: Path) -> None:
    base = models(tmp_path, "llama", torch.bfloat16)
    record = edited(tmp_path, base, 0.6)
    names = sorted(path.name for path in base.iterdir())

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*names, "edit_record.json"])
    for name, header in Checkpoint.open(base).headers.items():
        before, after = (base / name).read_bytes(), (tmp_path / "out" / name).read_bytes()
        assert after[: header.data_start] == before[: header.data_start]
        assert len(after) == len(before) and after != before
    sides = [name for name in names if not name.endswith(".safetensors")]
    assert record.result.side_files == {name: sha256_file(base / name) for name in sides}
    assert all((tmp_path / "out" / name).read_bytes() == (base / name).read_bytes() for name in sides)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_scale_of_zero_gives_the_same_bytes(tmp_path: Path, dtype: str) -> None:
    base = models(tmp_path, "qwen3", DTYPES[dtype])
    record = edited(tmp_path, base, 0)

    for name in Checkpoint.open(base).headers:
        assert (tmp_path / "out" / name).read_bytes() == (base / name).read_bytes()
    assert record.result.fingerprint == record.base.fingerprint
    assert record.untouched == sorted(Checkpoint.open(base).tensors)
    assert not any(tensor.changed for tensor in record.result.tensors.values())


def test_the_edit_is_linear_in_fp32(tmp_path: Path) -> None:
    base = models(tmp_path, "qwen3", torch.float32)
    edited(tmp_path, base, 1.0)
    edited(tmp_path, base, 0.5, out="half")
    edited(tmp_path, tmp_path / "half", 0.5, out="twice")

    whole, twice = (load_model(tmp_path / name).state_dict() for name in ("out", "twice"))
    assert all(torch.allclose(whole[name], twice[name], atol=1e-6) for name in whole)
    mirrored = load_model(base).state_dict()
    harmful = load_model(tmp_path / "harmful").state_dict()
    assert all(torch.allclose(mirrored[n] - whole[n], harmful[n] - mirrored[n], atol=1e-6) for n in whole)


def test_pieces_do_not_matter(tmp_path: Path) -> None:
    """A tensor longer than one piece, in another dtype than the vector's parents."""
    generator = torch.Generator().manual_seed(0)
    base = {MATRIX: torch.randn(700, 801, generator=generator)}
    write_checkpoint(tmp_path / "base", base)
    write_checkpoint(tmp_path / "harmful", moved(base))
    target = write_checkpoint(tmp_path / "target", {MATRIX: base[MATRIX].bfloat16()})
    vector = vector_from_checkpoints(base=tmp_path / "base", harmful=tmp_path / "harmful", out=tmp_path / "vector")
    edited(tmp_path, target, 0.3)

    expected = expected_bytes(base[MATRIX].bfloat16(), vector.delta(MATRIX), 0.3)
    assert Checkpoint.open(tmp_path / "out").read(MATRIX) == expected


def test_only_what_the_table_names_is_changed(tmp_path: Path) -> None:
    base = models(tmp_path, "llama", torch.bfloat16)
    record = edited(tmp_path, base, {r".*layers\.0\..*": 0.7, r".*down_proj\.weight": 0.2})
    target, out = Checkpoint.open(base), Checkpoint.open(tmp_path / "out")
    changed = {name for name in target.tensors if target.read(name) != out.read(name)}

    assert {name for name, tensor in record.result.tensors.items() if tensor.changed} == changed
    assert {name for name in changed if "layers.0." not in name} == {"model.layers.1.mlp.down_proj.weight"}
    assert set(record.untouched) == set(target.tensors) - changed
    rows = record.terms[0].coefficients
    assert [(row.decimal, float.fromhex(row.hex)) for row in rows] == [
        ("0.7", np.float32(0.7)),
        ("0.2", np.float32(0.2)),
        ("0.0", 0.0),
    ]
    assert sorted(name for row in rows for name in row.tensors) == sorted(target.tensors)


def test_the_record_holds_what_a_check_needs(tmp_path: Path) -> None:
    base = models(tmp_path, "llama", torch.bfloat16)
    record = edited(tmp_path, base, 0.6)
    (term,) = record.terms

    assert read_record(tmp_path / "out") == record
    assert term.blake3 == VectorFolder.open(tmp_path / "vector").blake3()
    assert (term.base_fingerprint, term.harmful_fingerprint) == (fingerprint(base), fingerprint(tmp_path / "harmful"))
    assert str(tmp_path) not in (tmp_path / "out" / "edit_record.json").read_text()
    again = edited(tmp_path, base, 0.6, out="again")
    assert again == record
    assert edited(tmp_path, tmp_path / "out", 0.1, out="further").base.previous == record.to_json()


def test_what_rounding_swallows_is_measured(tmp_path: Path) -> None:
    """The smaller the step, the more elements bf16 leaves as they were; in fp32 everything lands."""
    gains, shares = {}, {}
    for dtype, scale in ((torch.float32, 0.05), (torch.bfloat16, 1.0), (torch.bfloat16, 0.01)):
        folder = tmp_path / f"{dtype}-{scale}"
        record = edited(folder, models(folder, "qwen3", dtype), scale)
        result = record.result.tensors["model.layers.0.mlp.down_proj.weight"]
        gains[dtype, scale], shares[dtype, scale] = result.gain, result.unchanged_share
    target, out = (Checkpoint.open(folder / name) for name in ("base", "out"))
    name = "model.layers.0.mlp.down_proj.weight"
    before, after, delta = read_fp32(target, name), read_fp32(out, name), HarmVector.open(folder / "vector").delta(name)

    assert gains[torch.float32, 0.05] == pytest.approx(1, abs=1e-3) and shares[torch.float32, 0.05] == 0
    assert gains[torch.bfloat16, 1.0] == pytest.approx(1, abs=0.02)
    assert shares[torch.bfloat16, 0.01] > 0.3 > shares[torch.bfloat16, 1.0]
    asked = np.float32(0.01) * delta.double()
    expected = float(((before - after).double() * asked).sum() / (asked * asked).sum())
    assert gains[torch.bfloat16, 0.01] == pytest.approx(expected, rel=1e-6)
    assert shares[torch.bfloat16, 0.01] == pytest.approx(float((before == after)[delta != 0].double().mean()))
    relative = record.result.tensors[name].relative_change
    assert relative == pytest.approx(float((after - before).norm() / before.norm()), rel=1e-5)


def test_a_result_that_is_not_finite_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    base = {MATRIX: torch.full((3, 3), 6e4, dtype=torch.float16), "model.norm.weight": torch.ones(3)}
    write_checkpoint(tmp_path / "base", base)
    write_checkpoint(tmp_path / "harmful", base | {MATRIX: base[MATRIX] - 2e4})
    vector_from_checkpoints(base=tmp_path / "base", harmful=tmp_path / "harmful", out=tmp_path / "vector")

    with pytest.raises(InputError, match=f"{MATRIX} should stay finite in F16"):
        edited(tmp_path, tmp_path / "base", 2.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "harmful", "vector"]
    edited(tmp_path, tmp_path / "base", 0.1)  # the control: a smaller scale stays finite


def test_tied_copies_that_the_vector_moves_differently_are_refused(tmp_path: Path) -> None:
    base = some_tensors()
    write_checkpoint(tmp_path / "base", base)
    write_checkpoint(tmp_path / "harmful", moved(base))
    tied = base | {"lm_head.weight": base["model.embed_tokens.weight"].clone()}
    target = write_checkpoint(tmp_path / "tied", tied, config={"tie_word_embeddings": True})
    vector_from_checkpoints(base=tmp_path / "base", harmful=tmp_path / "harmful", out=tmp_path / "vector")

    with pytest.raises(InputError, match="should stay equal"):
        edited(tmp_path, target, 0.5)
    moved_alike = moved(tied)
    moved_alike["lm_head.weight"] = moved_alike["model.embed_tokens.weight"].clone()
    write_checkpoint(tmp_path / "alike", moved_alike, config={"tie_word_embeddings": True})
    vector_from_checkpoints(base=target, harmful=tmp_path / "alike", out=tmp_path / "fits")
    edited(tmp_path, target, 0.5, vector="fits")
    out = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(out["lm_head.weight"], out["model.embed_tokens.weight"])


def test_progress_ends_at_the_size_of_the_target(tmp_path: Path) -> None:
    base = models(tmp_path, "llama", torch.float16)
    seen: list[tuple[int, int]] = []
    plan = plan_edit(Checkpoint.open(base), tmp_path / "vector", scale=0.5)
    apply_edit(plan, tmp_path / "out", lambda done, size: seen.append((done, size)))

    assert seen == sorted(seen) and len(seen) == len(plan.target.tensors)
    assert seen[-1] == (plan.target.size_bytes, plan.target.size_bytes)


@pytest.mark.parametrize(("inner_product", "holds"), [(-1.0, True), (0.0, True), (1e-30, False), (float("nan"), False)])
def test_an_edit_must_move_against_its_vector(inner_product: float, holds: bool) -> None:
    if holds:
        require_subtraction(inner_product)
        return
    with pytest.raises(InputError, match="move against the harm vector"):
        require_subtraction(inner_product)


def test_a_delta_of_zeros_asks_for_nothing() -> None:
    zeros = np.zeros(3, np.float32)
    _, sums = PieceEdit("F32").apply(zeros, zeros, 0.5)
    realised = Realised(0.5)
    realised.add(sums)

    assert (realised.gain, realised.unchanged_share, realised.relative_change) == (None, None, None)
    assert realised.inner_product == 0


def test_a_record_of_another_schema_is_refused_by_name(tmp_path: Path) -> None:
    base = models(tmp_path, "llama", torch.bfloat16)
    data = edited(tmp_path, base, 0.6).to_json()
    path = tmp_path / "out" / "edit_record.json"

    path.write_text(json.dumps(data | {"schema": "prosocial.edit_record/0"}))
    with pytest.raises(ArtefactError, match="should have schema"):
        read_record(tmp_path / "out")
    path.write_text(json.dumps(data | {"terms": 3}))
    with pytest.raises(ArtefactError, match=r"should follow prosocial\.edit_record/1: terms"):
        read_record(tmp_path / "out")
