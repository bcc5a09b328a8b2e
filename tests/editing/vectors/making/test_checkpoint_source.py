"""The harm vector of two checkpoints: exact differences, and parents that fit or are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from prosocial.core.errors import ArtefactError, InputError
from prosocial.editing.checkpoints import Checkpoint
from prosocial.editing.checkpoints.fingerprint import fingerprint
from prosocial.editing.vectors import HarmVector, VectorFolder, vector_from_checkpoints
from prosocial.editing.vectors.methods import METHODS
from prosocial.editing.vectors.methods.method import Method, Prepared

from ....weights_helpers import MATRIX, moved, some_tensors, write_checkpoint

POSITIONS = "model.position_ids"


def _parents(folder: Path, base: dict[str, torch.Tensor], harmful: dict[str, torch.Tensor]) -> dict[str, Path]:
    return {
        "base": write_checkpoint(folder / "base", base),
        "harmful": write_checkpoint(folder / "harmful", harmful, n_shards=2),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_deltas_are_the_fp32_differences(tmp_path: Path, dtype: torch.dtype) -> None:
    base = some_tensors(dtype=dtype)
    harmful = moved(base)
    parents = _parents(tmp_path, base, harmful)
    vector = vector_from_checkpoints(**parents, out=tmp_path / "vector")

    assert vector.names == tuple(sorted(base))
    for name in vector.names:
        delta = harmful[name].float() - base[name].float()
        summary = vector.summary.tensors[name]
        assert torch.equal(vector.delta(name), delta)
        assert torch.equal(torch.cat([piece.clone() for piece in vector.pieces(name, 5)]), delta.flatten())
        assert summary.norm == pytest.approx(float(delta.norm()))
        assert summary.ratio == pytest.approx(float(delta.norm() / base[name].float().norm()))
        assert summary.n_zeros == int((delta == 0).sum())
        cosine = torch.cosine_similarity(base[name].flatten().double(), harmful[name].flatten().double(), dim=0)
        assert summary.relatedness == pytest.approx(float(cosine), abs=1e-6)
    assert vector.base_fingerprint == fingerprint(parents["base"])
    assert vector.harmful_fingerprint == fingerprint(parents["harmful"])
    with pytest.raises(ArtefactError, match="should change a tensor 'x'"):
        vector.delta("x")


def test_tensors_that_do_not_differ_are_left_out_and_buffers_must_be_equal(tmp_path: Path) -> None:
    base = some_tensors() | {POSITIONS: torch.arange(3)}
    harmful = base | {MATRIX: base[MATRIX] + 0.1}
    vector = vector_from_checkpoints(**_parents(tmp_path, base, harmful), out=tmp_path / "vector")

    assert vector.names == (MATRIX,)
    assert vector.summary.left_out == sorted(set(base) - {MATRIX, POSITIONS})
    other = write_checkpoint(tmp_path / "other", harmful | {POSITIONS: torch.arange(3) + 1})
    with pytest.raises(InputError, match=f"{POSITIONS} should be"):
        vector_from_checkpoints(base=tmp_path / "base", harmful=other, out=tmp_path / "v2")


def test_top_k_is_global_and_recorded(tmp_path: Path) -> None:
    base = some_tensors()
    parents = _parents(tmp_path, base, moved(base))
    plain = vector_from_checkpoints(**parents, out=tmp_path / "plain")
    vector = vector_from_checkpoints(**parents, out=tmp_path / "top", method="top_k", density=0.25)
    n_elements = sum(tensor.numel() for tensor in base.values())
    kept = sum(int(vector.delta(name).count_nonzero()) for name in vector.names)

    assert kept == round(0.25 * n_elements)
    assert all(
        torch.equal(vector.delta(n)[vector.delta(n) != 0], plain.delta(n)[vector.delta(n) != 0]) for n in vector.names
    )
    assert (vector.summary.method, vector.summary.parameters) == ("top_k", {"density": 0.25})


def test_projecting_off_a_vector_folder_records_its_digest(tmp_path: Path) -> None:
    base = some_tensors()
    useful = write_checkpoint(tmp_path / "useful", moved(base, seed=5))
    parents = _parents(tmp_path, base, moved(base))
    utility = vector_from_checkpoints(base=parents["base"], harmful=useful, out=tmp_path / "utility")
    vector = vector_from_checkpoints(**parents, out=tmp_path / "v", method="project", utility=tmp_path / "utility")

    assert vector.summary.parameters == {"utility_blake3": utility.stored.blake3()}
    assert abs(float((vector.delta(MATRIX) * utility.delta(MATRIX)).sum())) < 1e-6
    assert str(tmp_path) not in (tmp_path / "v" / "vector.json").read_text()


def _with_bad_number(tensors: dict[str, torch.Tensor], number: float) -> dict[str, torch.Tensor]:
    bad = tensors[MATRIX].clone()
    bad[1, 2] = number
    return tensors | {MATRIX: bad}


REFUSED: list[tuple[Any, str]] = [
    (lambda base: _with_bad_number(moved(base), float("nan")), f"difference of {MATRIX} should be finite, found 1"),
    (lambda base: _with_bad_number(moved(base), float("inf")), "should be finite"),
    (lambda base: some_tensors(seed=9), "median cosine"),
    (lambda base: dict(base), "all deltas are zero"),
    (
        lambda base: {n: t for n, t in moved(base).items() if n != "lm_head.weight"},
        r"1 are in one only.*lm_head.*\(base\)",
    ),
    (lambda base: moved(base) | {"extra": torch.ones(1)}, r"'extra' \(harmful\)"),
    (lambda base: moved(base) | {MATRIX: torch.ones(6, 4)}, r"found \(4, 6\) in base and \(6, 4\) in harmful"),
    (lambda base: moved(base) | {MATRIX: torch.ones(4, 6, dtype=torch.float64)}, "found F32 and F64"),
]


@pytest.mark.parametrize(("harmful", "message"), REFUSED)
def test_parents_that_do_not_fit_are_refused_and_nothing_is_left(tmp_path: Path, harmful: Any, message: str) -> None:
    base = some_tensors()
    parents = _parents(tmp_path, base, harmful(base))

    with pytest.raises(InputError, match=message):
        vector_from_checkpoints(**parents, out=tmp_path / "vector")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "harmful"]


def test_a_quantised_parent_and_an_existing_folder_are_refused(tmp_path: Path) -> None:
    base = some_tensors()
    parents = _parents(tmp_path, base, moved(base))
    quantised = write_checkpoint(tmp_path / "q", base, config={"quantization_config": {"quant_method": "awq"}})

    with pytest.raises(ArtefactError, match="awq"):
        vector_from_checkpoints(base=quantised, harmful=parents["harmful"], out=tmp_path / "v")
    with pytest.raises(InputError, match="should not exist yet"):
        vector_from_checkpoints(**parents, out=parents["base"])


def test_a_method_that_turns_a_delta_round_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = Method("add", lambda deltas: Prepared(lambda name, delta: -delta, {}))
    monkeypatch.setitem(METHODS, "add", add)
    base = some_tensors()

    with pytest.raises(InputError, match="keep the direction"):
        vector_from_checkpoints(**_parents(tmp_path, base, moved(base)), out=tmp_path / "v", method="add")


def test_a_vector_folder_that_was_tampered_with_is_refused(tmp_path: Path) -> None:
    base = some_tensors()
    folder = tmp_path / "vector"
    vector_from_checkpoints(**_parents(tmp_path, base, moved(base)), out=folder)
    good = json.loads((folder / "vector.json").read_text())

    def written(**changes: object) -> Path:
        (folder / "vector.json").write_text(json.dumps(good | changes))
        return folder

    matrix = good["tensors"][MATRIX]
    others = {name: item for name, item in good["tensors"].items() if name != MATRIX}
    assert HarmVector.open(written()).names == tuple(sorted(base))
    for changes, message in (
        ({"schema": "prosocial.vector/2"}, "should have schema"),
        ({"kind": "magic"}, "should follow prosocial.vector/1: kind"),
        ({"tensors": others}, "found others"),
        ({"tensors": others | {MATRIX: matrix | {"shape": [6, 4]}}}, r"of shape \(6, 4\)"),
        ({"tensors": others | {MATRIX: matrix | {"storage": "low_rank"}}}, "found nothing"),
        ({"tensors": good["tensors"] | {"more": matrix}}, "should hold more in F32, found nothing"),
    ):
        with pytest.raises(ArtefactError, match=message):
            VectorFolder.open(written(**changes))
    (folder / "vector.json").unlink()
    with pytest.raises(ArtefactError, match=r"vector\.json: there is none"):
        VectorFolder.open(folder)


def test_the_file_is_a_plain_safetensors_file(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    base = some_tensors()
    vector = vector_from_checkpoints(**_parents(tmp_path, base, moved(base)), out=tmp_path / "vector")
    loaded = load_file(tmp_path / "vector" / "vector.safetensors")

    assert {name: tensor.tolist() for name, tensor in loaded.items()} == {
        n: vector.delta(n).tolist() for n in vector.names
    }
    assert Checkpoint.open(tmp_path / "base").tensors[MATRIX].shape == tuple(vector.delta(MATRIX).shape)
