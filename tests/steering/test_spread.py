"""A model whose layers accelerate has spread gives what it gives on one device."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import dispatch_model

from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import MissingExtraError
from prosocial.editing.checkpoints import folder as checkpoint_folders
from prosocial.editing.checkpoints import model as models
from prosocial.steering.steered_model import SteeredModel
from prosocial.steering.torch_engine import PlainEngine


def spread(model: Any, folder: Path) -> Any:
    """Keep the last layer and the output embedding on disk, as accelerate does where memory is short."""
    places = {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.norm": "cpu"}
    places |= {"model.layers.0": "cpu", "model.layers.1": "disk", "lm_head": "disk"}
    return dispatch_model(model, places, main_device="cpu", offload_dir=str(folder))


def test_a_spread_model_replies_as_a_whole_one(pico: Any, llama_folder: Path, tmp_path: Path) -> None:
    whole = pico.steered()
    part = SteeredModel(
        spread(pico.model("llama"), tmp_path), *pico.parts(), pico.config(), end_ids=[1]
    )  # head and gate read the output embedding, which lies on disk
    assert part.backbone.model.lm_head.weight.is_meta and part.backbone.device == torch.device("cpu")
    assert torch.equal(part.backbone.output_weight, whole.backbone.output_weight)
    tokenizer = ChatTokenizer(llama_folder)
    asked = [each.generate(pico.conversations(4), tokenizer, max_new_tokens=6) for each in (whole, part)]
    assert [reply.token_ids for reply in asked[0]] == [reply.token_ids for reply in asked[1]]


def test_weights_go_straight_onto_a_device_or_are_spread(llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, device = checkpoint_folders.Checkpoint.open(llama_folder), torch.device("meta")
    assert models._placing(checkpoint, torch.float32, torch.device("cpu")) == {}
    assert models._placing(checkpoint, torch.float32, device) == {"device_map": {"": device}}
    n_bytes = 4 * checkpoint.n_parameters
    monkeypatch.setattr(models, "free_bytes", lambda _: n_bytes)  # no room for activations
    assert models._placing(checkpoint, torch.float32, device) == {"device_map": "auto"}
    assert models._placing(checkpoint, torch.bfloat16, device) == {"device_map": {"": device}}
    monkeypatch.setattr(models, "find_spec", lambda _: None)
    assert models._placing(checkpoint, torch.bfloat16, device) == {}
    with pytest.raises(MissingExtraError, match=r"accelerate.*prosocial\[train\]"):
        models._placing(checkpoint, torch.float32, device)


def test_an_engine_of_a_spread_model_keeps_rows(pico: Any, tmp_path: Path) -> None:
    import numpy as np

    engine = PlainEngine(spread(pico.model("llama"), tmp_path))
    stream = engine.prefill(np.array([[4, 5, 6], [4, 5, 7]]), None, capacity=8)
    second = stream.decision.logits[1]
    stream.keep(np.array([1]))
    stream.step(np.array([int(second.argmax())]))
    assert stream.decision.logits.shape == (1, pico.vocabulary)
