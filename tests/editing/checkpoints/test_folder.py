"""Checkpoint folders: opened from headers, refused with a reason, the same fingerprint however they are sharded."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from prosocial.core.errors import ArtefactError, InputError
from prosocial.editing.checkpoints import Checkpoint, describe_checkpoint, refuse_quantised
from prosocial.editing.checkpoints.digests import digest_tensor, stream_tensor
from prosocial.editing.checkpoints.fingerprint import fingerprint
from prosocial.editing.checkpoints.source import resolve_model
from prosocial.editing.checkpoints.tensors import read_fp32

from ...weights_helpers import MATRIX, moved, some_tensors, write_checkpoint

INDEX = "model.safetensors.index.json"


def test_what_was_saved_is_what_is_read(tmp_path: Path) -> None:
    tensors = some_tensors(dtype=torch.bfloat16)
    checkpoint = Checkpoint.open(write_checkpoint(tmp_path / "m", tensors, n_shards=2))

    assert list(checkpoint.tensors) == sorted(tensors)
    assert checkpoint.n_parameters == sum(tensor.numel() for tensor in tensors.values())
    assert checkpoint.size_bytes == 2 * checkpoint.n_parameters
    assert checkpoint.read(MATRIX) == tensors[MATRIX].view(torch.uint8).numpy().tobytes()
    assert torch.equal(read_fp32(checkpoint, MATRIX), tensors[MATRIX].float())
    with pytest.raises(ArtefactError, match="should hold a tensor 'x'"):
        read_fp32(checkpoint, "x")
    with pytest.raises(ArtefactError, match="should hold a tensor 'x'"):
        checkpoint.read("x")


def test_the_fingerprint_depends_on_weights_and_not_on_sharding(tmp_path: Path) -> None:
    tensors = some_tensors()
    one = fingerprint(write_checkpoint(tmp_path / "one", tensors))
    three = fingerprint(write_checkpoint(tmp_path / "three", dict(reversed(tensors.items())), n_shards=3))
    changed = tensors | {MATRIX: tensors[MATRIX].clone()}
    changed[MATRIX][0, 0] = torch.nextafter(changed[MATRIX][0, 0], torch.tensor(9.0))

    assert one == three
    assert fingerprint(write_checkpoint(tmp_path / "changed", changed)) != one
    turned = tensors | {MATRIX: tensors[MATRIX].reshape(6, 4)}
    assert fingerprint(write_checkpoint(tmp_path / "turned", turned)) != one
    renamed = {name.replace("norm", "morn"): tensor for name, tensor in tensors.items()}
    assert fingerprint(write_checkpoint(tmp_path / "renamed", renamed)) != one


def test_streaming_in_pieces_gives_the_same_bytes(tmp_path: Path) -> None:
    tensor = Checkpoint.open(write_checkpoint(tmp_path / "m", some_tensors())).tensors[MATRIX]
    pieces = [bytes(piece) for piece in stream_tensor(tensor, chunk_bytes=7)]

    assert [len(piece) for piece in pieces] == [7] * 13 + [5]
    assert b"".join(pieces) == b"".join(map(bytes, stream_tensor(tensor)))
    tensor.file.write_bytes(tensor.file.read_bytes()[: tensor.end - 1])
    with pytest.raises(ArtefactError, match="truncated"):
        digest_tensor(tensor)


def test_side_files_travel_and_bound_files_do_not(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", some_tensors(), n_shards=2)
    (folder / "extra").mkdir()
    for name in ("tokenizer.json", "extra/LICENSE", "pytorch_model.bin", "head.safetensors", "head_config.json", ".x"):
        (folder / name).write_text("x")
    checkpoint = Checkpoint.open(folder)

    assert checkpoint.side_files == ["config.json", "extra/LICENSE", "tokenizer.json"]
    assert checkpoint.bound_files == ["head.safetensors", "head_config.json", "pytorch_model.bin"]


@pytest.mark.parametrize(
    ("config", "drop", "tied", "n_stored", "n_copies"),
    [
        ({"tie_word_embeddings": True}, "lm_head.weight", True, 1, 0),
        ({"tie_word_embeddings": True}, None, True, 2, 2),
        ({"tie_word_embeddings": False}, None, False, 2, 0),
        ({"text_config": {"tie_word_embeddings": True}}, "lm_head.weight", True, 1, 0),
        ({}, "lm_head.weight", True, 1, 0),
        ({}, None, False, 2, 0),
    ],
)
def test_tied_embeddings_are_told_from_config_and_names(
    tmp_path: Path, config: dict[str, object], drop: str | None, tied: bool, n_stored: int, n_copies: int
) -> None:
    tensors = {name: tensor for name, tensor in some_tensors().items() if name != drop}
    found = Checkpoint.open(write_checkpoint(tmp_path / "m", tensors, config=config)).tied

    assert (found.tied, len(found.stored), len(found.copies)) == (tied, n_stored, n_copies)


def test_the_description_is_plain_data(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(write_checkpoint(tmp_path / "m", some_tensors(dtype=torch.float16)))
    description = describe_checkpoint(checkpoint)

    assert json.loads(json.dumps(description)) == description
    assert description["fingerprint"] == checkpoint.fingerprint()
    assert description["n_by_dtype"] == {"F16": 4}
    assert "fingerprint" not in describe_checkpoint(checkpoint, fingerprint=False)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"config\.json"):
        Checkpoint.open(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ArtefactError, match="there is neither"):
        Checkpoint.open(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ArtefactError, match=r"only pickles \(pytorch_model.bin\).*convert"):
        Checkpoint.open(tmp_path)
    save_file({}, tmp_path / "model.safetensors")
    with pytest.raises(ArtefactError, match="no tensor"):
        Checkpoint.open(tmp_path)


def _break_index(folder: Path, **places: str | None) -> None:
    index = json.loads((folder / INDEX).read_text())
    for name, file in places.items():
        index["weight_map"][name] = file
    (folder / INDEX).write_text(json.dumps(index))


def test_an_index_must_say_what_the_shards_hold(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", some_tensors(), n_shards=2)
    index = json.loads((folder / INDEX).read_text())
    shard = index["weight_map"][MATRIX]

    _break_index(folder, ghost=shard)
    with pytest.raises(ArtefactError, match=r"'ghost' in .* is not in the file"):
        Checkpoint.open(folder)
    _break_index(folder, ghost="../m/x.safetensors")
    with pytest.raises(ArtefactError, match="in its folder"):
        Checkpoint.open(folder)
    del index["weight_map"][MATRIX]
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(ArtefactError, match=f"'{MATRIX}' in {shard} is not in the index"):
        Checkpoint.open(folder)
    (folder / INDEX).write_text("{}")
    with pytest.raises(ArtefactError, match="weight_map"):
        Checkpoint.open(folder)


def test_two_sets_of_weights_are_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", some_tensors(), n_shards=2)
    save_file(some_tensors(), folder / "model.safetensors")

    with pytest.raises(ArtefactError, match="one set of weights"):
        Checkpoint.open(folder)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", some_tensors(), n_shards=2)
    (folder / "model-00002-of-00002.safetensors").unlink()

    with pytest.raises(ArtefactError, match="model-00002-of-00002"):
        Checkpoint.open(folder)


@pytest.mark.parametrize(
    ("config", "extra", "evidence"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, {}, "quantization_config of gptq"),
        ({"text_config": {"quantization_config": {"quant_method": "fp8"}}}, {}, "quantization_config of fp8"),
        ({}, {"model.q.qweight": torch.ones(2, dtype=torch.int32)}, "model.q.qweight of GPTQ"),
        ({}, {"model.q.weight": torch.ones(2, dtype=torch.uint8)}, "model.q.weight in U8"),
        ({}, {"model.q": torch.ones(2).to(torch.float8_e4m3fn)}, "model.q in F8_E4M3"),
        ({}, {"q.weight.quant_state.bitsandbytes__nf4": torch.ones(2)}, "bitsandbytes"),
        ({}, {"model.q.weight_scale_inv": torch.ones(2)}, "fp8"),
    ],
)
def test_quantised_weights_are_refused_by_method(
    tmp_path: Path, config: dict[str, object], extra: dict[str, torch.Tensor], evidence: str
) -> None:
    checkpoint = Checkpoint.open(write_checkpoint(tmp_path / "m", some_tensors() | extra, config=config))

    with pytest.raises(ArtefactError, match=f"{evidence}.*edit the unquantised parent"):
        refuse_quantised(checkpoint)


def test_plain_weights_with_buffers_are_not_taken_for_quantised(tmp_path: Path) -> None:
    tensors = some_tensors() | {"model.position_ids": torch.arange(4)}
    refuse_quantised(Checkpoint.open(write_checkpoint(tmp_path / "m", tensors)))


def test_a_model_is_a_folder_or_a_snapshot_of_the_hub(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", moved(some_tensors()))
    assert resolve_model(folder) == folder
    commit = "a" * 40
    repository = tmp_path / "cache" / "models--org--name"
    write_checkpoint(repository / "snapshots" / commit, some_tensors())
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)

    found = resolve_model("org/name", cache=tmp_path / "cache", local_only=True)
    assert fingerprint(found) == fingerprint(repository / "snapshots" / commit)
    with pytest.raises(InputError, match="'org/other' should be a local folder or a repository"):
        resolve_model("org/other", cache=tmp_path / "cache", local_only=True)
    with pytest.raises(InputError, match="no such folder"):
        resolve_model(tmp_path / "no" / "such" / "folder")
    with pytest.raises(InputError, match="should be a local folder or a repository"):
        resolve_model("org/other--x", cache=tmp_path / "cache", local_only=True)
