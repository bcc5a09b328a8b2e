"""Adapters of vision-language models, whose tensors transformers renames on loading, agree with what peft merges."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from prosocial.editing import apply_edit, make_vector, plan_edit, write_adapter
from prosocial.editing.checkpoints import Checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # in peft

TEXT: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 64,
}
VISION: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16,
    "patch_size": 4,
}  # fmt: skip


def build(kind: str) -> Any:
    import transformers

    torch.manual_seed(0)
    if kind == "gemma3":
        config = transformers.Gemma3Config(
            text_config=TEXT | {"sliding_window": 16}, vision_config=VISION, image_token_index=90, boi_token_index=91,
            eoi_token_index=92, mm_tokens_per_image=4,
        )  # fmt: skip
        return transformers.Gemma3ForConditionalGeneration(config)
    if kind == "llava":
        config = transformers.LlavaConfig(
            text_config={"model_type": "llama"} | TEXT,
            vision_config={"model_type": "clip_vision_model"} | VISION,
            image_token_index=90,
        )
        return transformers.LlavaForConditionalGeneration(config)
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": 32}
    config = transformers.Qwen2_5_VLConfig(
        text_config=TEXT | rope, vision_config=vision | {"patch_size": 4, "fullatt_block_indexes": [0]},
        image_token_id=90, video_token_id=91, vision_start_token_id=92, vision_end_token_id=93,
    )  # fmt: skip
    return transformers.Qwen2_5_VLForConditionalGeneration(config)


def save_adapter(folder: Path, kind: str, **options: Any) -> Any:
    model = build(kind).eval()
    model.save_pretrained(folder / "base")
    loaded = type(model).from_pretrained(folder / "base")
    config = LoraConfig(r=3, target_modules=r".*language_model.*(q_proj|down_proj)", init_lora_weights=False, **options)
    get_peft_model(loaded, config).save_pretrained(folder / "adapter")
    return type(model)


def merged(kind: Any, folder: Path, adapter: str, out: str) -> dict[str, torch.Tensor]:
    model = PeftModel.from_pretrained(kind.from_pretrained(folder / "base"), folder / adapter).merge_and_unload()
    model.save_pretrained(folder / out)
    return load_file(folder / out / "model.safetensors")


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"use_dora": True}], ids=str)
@pytest.mark.parametrize("kind", ["gemma3", "qwen2_5_vl", "llava"])
def test_a_vector_of_a_renamed_adapter_is_what_peft_merges(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    model = save_adapter(tmp_path, kind, **options)
    after = merged(model, tmp_path, "adapter", "merged")
    before = load_file(tmp_path / "base" / "model.safetensors")
    vector = make_vector(tmp_path / "adapter", tmp_path / "vector", base=tmp_path / "base")

    assert set(vector.names) == {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert len(vector.names) == 4
    for name in vector.names:
        assert torch.equal(before[name] + vector.delta(name), after[name]) or options.get("use_dora")
        assert torch.allclose(before[name] + vector.delta(name), after[name], atol=1e-6)


@pytest.mark.parametrize("kind", ["gemma3", "qwen2_5_vl", "llava"])
def test_an_edit_of_a_renamed_model_is_carried_by_an_adapter(tmp_path: Path, kind: str) -> None:
    model = save_adapter(tmp_path, kind)
    make_vector(tmp_path / "adapter", tmp_path / "vector", base=tmp_path / "base")
    plan = plan_edit(Checkpoint.open(tmp_path / "base"), tmp_path / "vector", scale=0.5)
    report = write_adapter(plan, tmp_path / "subtracts", rank=3)
    apply_edit(plan, tmp_path / "edited")
    by_adapter = merged(model, tmp_path, "subtracts", "by_adapter")

    assert report.left_out == [] and report.energy == pytest.approx(1)
    for name, value in load_file(tmp_path / "edited" / "model.safetensors").items():
        assert torch.allclose(by_adapter[name], value, atol=1e-6)
