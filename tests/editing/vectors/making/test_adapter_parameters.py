"""LoRA of fused experts (`target_parameters`): base + delta is what peft merges, however the base stores them."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from prosocial.core.errors import ArtefactError
from prosocial.editing.vectors import vector_from_adapter

from ....weights_helpers import SIZE

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),
    pytest.mark.filterwarnings("ignore:Could not find a config file"),
    pytest.mark.filterwarnings("ignore:The following .*_pattern keys did not match"),  # they do match parameters
    pytest.mark.filterwarnings("ignore:.*tie_word_embeddings"),
]
EXPERTS = SIZE | {"num_local_experts": 3, "num_experts": 3, "num_experts_per_tok": 2, "head_dim": 16}
WEIGHTS = ["experts.gate_up_proj", "experts.down_proj"]
FAMILIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "MixtralConfig": (EXPERTS, {"target_parameters": WEIGHTS}),
    "GptOssConfig": (EXPERTS, {"target_parameters": [*WEIGHTS, "experts.gate_up_proj_bias"]}),
    "Qwen3MoeConfig": (EXPERTS | {"moe_intermediate_size": 24}, {"target_parameters": ["mlp.experts.down_proj"]}),
    "OlmoeConfig": (EXPERTS, {"target_parameters": WEIGHTS, "use_rslora": True}),
    "GraniteMoeConfig": (EXPERTS, {"target_parameters": WEIGHTS, "rank_pattern": {"experts.down_proj": 3}}),
    "Llama4TextConfig": (
        EXPERTS | {"intermediate_size_mlp": 48, "intermediate_size": 32, "pad_token_id": 0},
        {"target_parameters": WEIGHTS, "alpha_pattern": {"layers.1.feed_forward.experts.gate_up_proj": 9}},
    ),
    "LlamaConfig": (SIZE, {"target_parameters": ["up_proj.weight", "model.embed_tokens.weight"]}),
}


def saved(folder: Path, family: str, **changes: Any) -> tuple[Path, Path, Path]:
    """Save a base, its trained adapter and what peft merges them to."""
    torch.manual_seed(0)
    size, lora = FAMILIES[family]
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, family)(**size))
    model.save_pretrained(folder / "base")
    config = {"r": 2, "lora_alpha": 3, "target_modules": ["q_proj"]} | lora | changes
    adapted = get_peft_model(copy.deepcopy(model), LoraConfig(task_type="CAUSAL_LM", **config))
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape)
    adapted.save_pretrained(folder / "adapter")
    adapted.merge_and_unload().save_pretrained(folder / "merged")
    return folder / "base", folder / "adapter", folder / "merged"


@pytest.mark.parametrize("family", FAMILIES)
def test_base_plus_delta_is_what_peft_merges(tmp_path: Path, family: str) -> None:
    base, adapter, merged = saved(tmp_path, family)
    vector = vector_from_adapter(base=base, adapter=adapter, out=tmp_path / "vector")
    before, after = (load_file(folder / "model.safetensors") for folder in (base, merged))

    assert set(vector.names) == {name for name in before if not torch.equal(before[name], after[name])}
    assert any("expert" in name or "up_proj" in name or "moe" in name for name in vector.names)
    for name in vector.names:
        assert torch.equal(before[name] + vector.delta(name), after[name]), name


def test_a_matrix_with_factors_stays_low_rank_and_any_method_takes_experts(tmp_path: Path) -> None:
    base, adapter, _ = saved(tmp_path / "llama", "LlamaConfig")
    assert vector_from_adapter(base=base, adapter=adapter, out=tmp_path / "v").summary.kind == "low_rank"

    base, adapter, _ = saved(tmp_path / "mixtral", "MixtralConfig")
    plain = vector_from_adapter(base=base, adapter=adapter, out=tmp_path / "plain")
    trimmed = vector_from_adapter(base=base, adapter=adapter, out=tmp_path / "t", method="top_k", density=0.1)
    for name in trimmed.names:
        kept = trimmed.delta(name) != 0
        assert torch.equal(trimmed.delta(name)[kept], plain.delta(name)[kept])


def test_factors_and_experts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    base, adapter, _ = saved(tmp_path, "MixtralConfig", target_modules=[])
    file, settings = adapter / "adapter_model.safetensors", adapter / "adapter_config.json"
    config, tensors = json.loads(settings.read_text()), load_file(file)

    def refused(message: str) -> None:
        with pytest.raises(ArtefactError, match=message):
            vector_from_adapter(base=base, adapter=adapter, out=tmp_path / "v")

    settings.write_text(json.dumps(config | {"r": 3}))
    refused(r"should hold factors of shapes \(9, \d+\) and")
    settings.write_text(json.dumps(config | {"target_parameters": "experts"}))
    refused("list of names")
    settings.write_text(json.dumps(config | {"target_parameters": ["router.weight"]}))
    refused("wrong base, or an unsupported variant")
    settings.write_text(json.dumps(config))
    save_file({name: tensor for name, tensor in tensors.items() if "lora_B" not in name}, file)
    refused("found")
    save_file(tensors, file)
    weights = load_file(base / "model.safetensors")
    name = next(name for name in weights if ".experts.1." in name)
    save_file({key: tensor for key, tensor in weights.items() if key != name}, base / "model.safetensors")
    refused(f"should hold {name} .*there is none")
