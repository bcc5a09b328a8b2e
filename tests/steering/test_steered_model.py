"""The steered model: any architecture, the parts that belong together, and folders written with hard links."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from prosocial.core.errors import ArtefactError, FingerprintError, InputError
from prosocial.steering.backbone import Backbone
from prosocial.steering.decoding.config import DecodingConfig
from prosocial.steering.gate import HarmGate
from prosocial.steering.steered_model import SteeredModel, assemble_steered


@pytest.mark.parametrize(
    ("kind", "extra"),
    [
        ("gemma2", {"final_logit_softcapping": 5.0}),
        ("cohere", {"logit_scale": 0.25}),
        ("granite", {"logits_scaling": 4.0}),
    ],
)
def test_soft_cap_and_scales_are_honoured(kind: str, extra: dict[str, float]) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind,
        vocab_size=60,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        pad_token_id=1,
        **extra,
    )
    backbone = Backbone(AutoModelForCausalLM.from_config(config))
    ids = torch.randint(60, (2, 5))
    with torch.no_grad():
        torch.testing.assert_close(backbone.logits(backbone.hidden(ids)), backbone.model(ids).logits)


def test_a_model_that_does_more_to_its_logits_is_refused(pico: Any) -> None:
    model = pico.model("llama")
    model.lm_head.register_forward_hook(lambda module, given, logits: logits + float(given[0].shape[1] == 8))
    model.config.final_logit_softcapping = 0.5
    with pytest.raises(InputError, match="not supported"):
        Backbone(model)
    with pytest.raises(InputError, match="body"):
        Backbone(model.base_model)


def test_the_cache_changes_nothing(pico: Any) -> None:
    steered, ids = pico.steered(), torch.randint(200, (2, 9))
    with torch.no_grad():
        whole = steered(ids)
        first = steered(ids[:, :5])
        second = steered(ids[:, 5:], past_key_values=first.past_key_values)
    torch.testing.assert_close(second.logits, whole.logits[:, 5:], rtol=1e-4, atol=1e-4)
    assert torch.equal(second.safe_set_size, whole.safe_set_size[:, 5:])
    assert isinstance(second.past_key_values, DynamicCache) and second.past_key_values.get_seq_length() == 9


def test_controls_left_out_are_the_defaults(pico: Any) -> None:
    steered, ids = pico.steered(), torch.randint(200, (1, 4))
    with torch.no_grad():
        assert torch.equal(steered(ids).logits, steered(ids, harm_threshold=torch.tensor([0.6])).logits)
        assert not torch.equal(steered(ids).logits, steered(ids, harm_threshold=torch.tensor([0.3])).logits)


def test_names_sizes_and_end_tokens_have_to_fit(pico: Any) -> None:
    model, (head, gate) = pico.model("llama"), pico.parts()
    with pytest.raises(InputError, match="in that order"):
        SteeredModel(model, head, gate, pico.config(attributes=["helpfulness", "empathy"]))
    other = HarmGate(pico.categories, pico.vocabulary + 1, pico.hidden, 4)
    with pytest.raises(InputError, match="output embedding"):
        SteeredModel(model, head, other, pico.config())
    with pytest.raises(InputError, match="end tokens"):
        SteeredModel(model, head, gate, pico.config(), end_ids=[pico.vocabulary])
    assert SteeredModel(model, head, gate, pico.config()).end_ids == (1,)  # of the generation config


def test_a_steered_folder_is_hard_links_and_opens(llama_folder: Path) -> None:
    checkpoint = llama_folder.parent / "checkpoint"
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (llama_folder / name).samefile(checkpoint / name)
    assert (llama_folder / "head.safetensors").samefile(llama_folder.parent / "parts" / "head.safetensors")
    steered = SteeredModel.open(llama_folder)
    assert steered.end_ids == (1,) and steered.config.plausible_k == 16


def test_parts_of_another_checkpoint_are_refused(pico: Any, llama_folder: Path, tmp_path: Path) -> None:
    head, gate = pico.parts()
    for part in (head, gate):
        part.save(tmp_path / "parts", checkpoint_fingerprint="00" * 32)
    good = llama_folder.parent / "parts"
    folders = {"checkpoint": llama_folder.parent / "checkpoint", "config": pico.config(), "out": tmp_path / "out"}
    with pytest.raises(FingerprintError, match=r"the head in .* belongs to checkpoint 0000"):
        assemble_steered(head=tmp_path / "parts", gate=good, **folders)
    with pytest.raises(FingerprintError, match="the gate in"):
        assemble_steered(head=good, gate=tmp_path / "parts", **folders)
    folders["config"] = pico.config(categories=["x", "y"], allowed_ceiling={}, safety_configs={})
    with pytest.raises(InputError, match="in that order"):
        assemble_steered(head=good, gate=good, **folders)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_without_tokenizer_is_refused(pico: Any, tmp_path: Path) -> None:
    from prosocial.editing.checkpoints import Checkpoint

    pico.model("llama").save_pretrained(tmp_path / "checkpoint")
    for part in pico.parts():
        part.save(tmp_path / "parts", checkpoint_fingerprint=Checkpoint.open(tmp_path / "checkpoint").fingerprint())
    with pytest.raises(ArtefactError, match="tokenizer"):
        assemble_steered(
            checkpoint=tmp_path / "checkpoint",
            head=tmp_path / "parts",
            gate=tmp_path / "parts",
            config=pico.config(),
            out=tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()


def test_another_chat_template_is_refused(pico: Any, llama_folder: Path, tmp_path: Path) -> None:
    """A template says where the roles are: the preference and the configs hold for the one they were made with."""
    shutil.copytree(llama_folder, tmp_path / "steered")
    path = tmp_path / "steered" / "chat_template.jinja"
    SteeredModel.open(llama_folder)
    path.write_text(f"{path.read_text()} ")
    with pytest.raises(ArtefactError, match="should hold the chat template with sha256"):
        SteeredModel.open(tmp_path / "steered")
    config = DecodingConfig.read(llama_folder)
    with pytest.raises(ArtefactError, match="chat template"):
        assemble_steered(
            checkpoint=tmp_path / "steered", head=llama_folder, gate=llama_folder, config=config, out=tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()
