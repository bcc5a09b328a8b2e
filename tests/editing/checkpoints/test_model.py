"""A checkpoint loads as a model only if every weight of the model is in it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from prosocial.core.errors import ArtefactError
from prosocial.editing.checkpoints import Checkpoint, load_model

from ...weights_helpers import pico


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "llama"
    pico("llama", torch.bfloat16).save_pretrained(folder, max_shard_size="20KB")
    return folder


def _copy(saved: Path, folder: Path, *, config: dict[str, object] | None = None, drop: str = "") -> Path:
    folder.mkdir()
    config = json.loads((saved / "config.json").read_text()) | (config or {})
    (folder / "config.json").write_text(json.dumps(config))
    tensors: dict[str, torch.Tensor] = {}
    for name in Checkpoint.open(saved).headers:
        tensors |= load_file(saved / name)
    tensors.pop(drop, None)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_the_loaded_model_is_the_saved_one(saved: Path) -> None:
    original, loaded, as_stored = pico("llama", torch.bfloat16), load_model(saved), load_model(saved, dtype=None)

    assert len(Checkpoint.open(saved).headers) > 1
    assert not loaded.training
    assert loaded.dtype == torch.float32 and as_stored.dtype == torch.bfloat16
    for name, value in original.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.float())
    assert loaded.get_input_embeddings().weight is loaded.get_output_embeddings().weight


def test_a_missing_weight_is_never_made_up(saved: Path, tmp_path: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    with pytest.raises(ArtefactError, match=f"1 missing, such as '{name}'"):
        load_model(_copy(saved, tmp_path / "m", drop=name))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"intermediate_size": 56}, "should"),
        ({"model_type": "no_such_type"}, "should load as a causal language model"),
        ({"model_type": "no_such_type", "auto_map": {"AutoModelForCausalLM": "x.Y"}}, "should load"),
        ({"hidden_size": "wide"}, "should load"),
    ],
)
def test_what_transformers_cannot_build_is_one_clear_line(
    saved: Path, tmp_path: Path, config: dict[str, object], message: str
) -> None:
    with pytest.raises(ArtefactError, match=message) as caught:
        load_model(_copy(saved, tmp_path / "m", config=config))

    assert "\n" not in str(caught.value)


def test_pickles_are_not_opened(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "config.json").write_bytes((saved / "config.json").read_bytes())
    torch.save({"x": torch.ones(1)}, folder / "pytorch_model.bin")

    with pytest.raises(ArtefactError, match="only pickles"):
        load_model(folder)
