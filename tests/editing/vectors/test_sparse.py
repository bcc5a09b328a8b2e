"""Sparse storage: the same delta in fewer bytes, read in any pieces, checked when it is read."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from prosocial.core.errors import ArtefactError
from prosocial.editing.checkpoints import Checkpoint
from prosocial.editing.checkpoints.header import read_header
from prosocial.editing.edits import apply_edit, plan_edit
from prosocial.editing.vectors import HarmVector, vector_from_checkpoints
from prosocial.editing.vectors.folder import Sparse
from prosocial.editing.vectors.sparse import Entries, SparseReader, index_dtype

from ...weights_helpers import moved, some_tensors, write_checkpoint


def stored(folder: Path, indices: torch.Tensor, values: torch.Tensor, shape: tuple[int, ...]) -> Sparse:
    file = folder / "sparse.safetensors"
    save_file({"i": indices, "v": values}, file)
    tensors = read_header(file).tensors
    return Sparse(tensors["i"], tensors["v"], shape)


def read_pieces(place: Sparse, n: int) -> list[torch.Tensor]:
    reader = SparseReader(place)
    pieces = []
    for at in range(0, reader.n_elements, n):
        piece = np.empty(min(n, reader.n_elements - at), np.float32)
        reader.read(at, piece)
        pieces.append(torch.from_numpy(piece))
    return pieces


@given(st.lists(st.sampled_from([0.0, 0.0, 1.5, -2.0]), min_size=1, max_size=60), st.integers(1, 70), st.booleans())
def test_any_pieces_give_the_delta_back(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], n: int, long: bool
) -> None:
    delta = torch.tensor(values)
    entries = Entries.of(delta.numpy())
    indices, kept = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*entries.parts, strict=True))
    assert torch.equal(torch.from_numpy(entries.whole()), delta)
    place = stored(tmp_path_factory.mktemp("s"), indices.long() if long else indices, kept, (len(values), 1))
    pieces = read_pieces(place, n)

    assert torch.equal(torch.cat(pieces), delta)
    assert [len(piece) for piece in pieces[:-1]] == [n] * (len(pieces) - 1)


@pytest.mark.parametrize("indices", [[1, 1], [2, 1], [-1, 3], [3, 8], [5, 3], [0, 2**31 - 1]])
@pytest.mark.parametrize("n", [1, 3, 8])
def test_indices_that_do_not_rise_or_leave_the_tensor_are_refused(tmp_path: Path, indices: list[int], n: int) -> None:
    place = stored(tmp_path, torch.tensor(indices, dtype=torch.int32), torch.ones(2), (2, 4))

    with pytest.raises(ArtefactError, match="should hold rising indices below 8 in i"):
        read_pieces(place, n)


def test_places_of_more_than_two_billion_elements_are_long() -> None:
    assert (index_dtype(2**31 - 1), index_dtype(2**31)) == ("I32", "I64")


def test_sparse_vectors_are_small_and_edit_as_dense_ones(tmp_path: Path) -> None:
    base = some_tensors(dtype=torch.bfloat16)
    parents = {
        "base": write_checkpoint(tmp_path / "base", base),
        "harmful": write_checkpoint(tmp_path / "harmful", moved(base)),
    }
    plain = vector_from_checkpoints(**parents, out=tmp_path / "plain")
    sparse = vector_from_checkpoints(**parents, out=tmp_path / "sparse", method="top_k_per_tensor", density=0.2)
    record = apply_edit(plan_edit(Checkpoint.open(tmp_path / "base"), tmp_path / "sparse", scale=0.5), tmp_path / "out")
    edited = Checkpoint.open(tmp_path / "out")

    assert sparse.summary.kind == "sparse" and record.terms[0].storage == "sparse"
    for name in sparse.names:
        delta = sparse.delta(name)
        largest = plain.delta(name).flatten().abs().topk(round(0.2 * delta.numel())).indices
        expected = torch.zeros(delta.numel()).index_copy(0, largest, plain.delta(name).flatten()[largest])
        assert torch.equal(delta.flatten(), expected)
        assert torch.equal(torch.cat([piece.clone() for piece in sparse.pieces(name, 7)]), expected)
        target = (base[name].float() - 0.5 * delta).to(torch.bfloat16)
        assert edited.read(name) == target.view(torch.uint8).numpy().tobytes()
    tensors = read_header(tmp_path / "sparse" / "vector.safetensors").tensors.values()
    dense = read_header(tmp_path / "plain" / "vector.safetensors").tensors.values()
    assert sum(tensor.size_bytes for tensor in tensors) < 0.45 * sum(tensor.size_bytes for tensor in dense)


def test_a_sparse_vector_that_was_tampered_with_is_refused(tmp_path: Path) -> None:
    base = some_tensors()
    parents = {
        "base": write_checkpoint(tmp_path / "base", base),
        "harmful": write_checkpoint(tmp_path / "harmful", moved(base)),
    }
    vector = vector_from_checkpoints(**parents, out=tmp_path / "v", method="top_k_per_tensor", density=0.2)
    place = vector.stored.sparse["lm_head.weight"].indices
    with place.file.open("r+b") as stream:
        stream.seek(place.start)
        stream.write(struct.pack("<i", 10**6))

    with pytest.raises(ArtefactError, match=r"should hold rising indices below 44 in lm_head.weight::indices"):
        HarmVector.open(tmp_path / "v").delta("lm_head.weight")
    with pytest.raises(ArtefactError, match="rising"):
        apply_edit(plan_edit(Checkpoint.open(tmp_path / "base"), tmp_path / "v", scale=0.5), tmp_path / "out")
    assert not (tmp_path / "out").exists()
