"""Ten architectures of transformers, sharded: an edit loads there, and is the arithmetic in memory, bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from prosocial.editing.checkpoints import Checkpoint, load_model
from prosocial.editing.edits import apply_edit, plan_edit
from prosocial.editing.vectors import vector_from_checkpoints

from ..weights_helpers import SIZE, fine_tuned

PADDED: dict[str, Any] = SIZE | {"pad_token_id": 0}
EXPERTS: dict[str, Any] = {"num_experts_per_tok": 2}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", PADDED),
    "llama tied": ("LlamaConfig", PADDED | {"tie_word_embeddings": True}),
    "qwen2": ("Qwen2Config", PADDED),
    "qwen2 tied": ("Qwen2Config", PADDED | {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", PADDED | {"head_dim": 16, "tie_word_embeddings": True}),
    "qwen3 moe": ("Qwen3MoeConfig", PADDED | EXPERTS | {"head_dim": 16, "num_experts": 4, "moe_intermediate_size": 24}),
    "mistral": ("MistralConfig", PADDED),
    "mixtral": ("MixtralConfig", PADDED | EXPERTS | {"num_local_experts": 4}),
    "gemma 3": ("Gemma3TextConfig", PADDED | {"head_dim": 16, "tie_word_embeddings": True}),
    "phi-3": ("Phi3Config", PADDED),
    "gpt-2": ("GPT2Config", {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}),
    "olmo 2": ("Olmo2Config", PADDED),
}
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
CASES = [
    pytest.param(name, dtype, marks=() if dtype == "BF16" else pytest.mark.prove)
    for name in CONFIGS
    for dtype in DTYPES
]


def random_model(name: str, dtype: torch.dtype) -> Any:
    import transformers

    kind, settings = CONFIGS[name]
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**settings)).to(dtype)
    for parameter in model.parameters():
        parameter.data += (0.1 * torch.randn(parameter.shape)).to(dtype)
    return model.eval()


def stored(folder: Path) -> dict[str, torch.Tensor]:
    """Every stored tensor of a folder, read by safetensors itself."""
    files = sorted(folder.glob("*.safetensors"))
    assert len(files) > 1 or folder.name == "out", f"{folder} should be sharded"
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_the_edit_is_the_arithmetic_in_memory_and_loads(tmp_path: Path, name: str, dtype: str) -> None:
    base, harmful, out = (tmp_path / part for part in ("base", "harmful", "out"))
    model = random_model(name, DTYPES[dtype])
    model.save_pretrained(base, max_shard_size="20KB")
    fine_tuned(model, 0.05).save_pretrained(harmful, max_shard_size="30KB")
    vector = vector_from_checkpoints(base=base, harmful=harmful, out=tmp_path / "vector")
    record = apply_edit(plan_edit(Checkpoint.open(base), tmp_path / "vector", scale=0.7), out)
    before, bad, after = stored(base), stored(harmful), stored(out)
    coefficient = torch.tensor(0.7)

    assert set(before) == set(after) == set(bad) == set(vector.names)
    for tensor, weight in before.items():
        delta = bad[tensor].float() - weight.float()
        expected = (weight.float() - coefficient * delta).to(weight.dtype)
        assert torch.equal(after[tensor].view(torch.uint8), expected.view(torch.uint8)), tensor
    assert record.result.inner_product < 0
    loaded = load_model(out, dtype=None)  # raises if a weight is missing, or of another shape
    assert loaded.dtype == DTYPES[dtype] and type(loaded) is type(model)
    tokens = torch.arange(1, 9)[None]
    with torch.inference_mode():
        assert bool(loaded(tokens).logits.isfinite().all())
        assert not torch.equal(loaded(tokens).logits, model(tokens).logits)


@pytest.mark.parametrize("name", [name for name in CONFIGS if "tied" in name or name in ("qwen3", "gemma 3", "gpt-2")])
def test_tied_embeddings_stay_one_matrix(tmp_path: Path, name: str) -> None:
    model = random_model(name, torch.float32)
    model.save_pretrained(tmp_path / "base", max_shard_size="20KB")
    fine_tuned(model, 0.05).save_pretrained(tmp_path / "harmful", max_shard_size="20KB")
    vector_from_checkpoints(base=tmp_path / "base", harmful=tmp_path / "harmful", out=tmp_path / "vector")
    target = Checkpoint.open(tmp_path / "base")
    apply_edit(plan_edit(target, tmp_path / "vector", scale=0.7), tmp_path / "out")
    loaded: Any = load_model(tmp_path / "out")

    assert target.tied.tied and len(target.tied.stored) == 1
    assert loaded.get_input_embeddings().weight is loaded.get_output_embeddings().weight
