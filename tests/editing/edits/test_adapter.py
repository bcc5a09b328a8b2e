"""An edit as a LoRA adapter: peft loads it, it subtracts, it is exact where the vector is low-rank."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from prosocial.cli.main import main
from prosocial.core.errors import InputError
from prosocial.editing.checkpoints import Checkpoint, linear_modules, load_model
from prosocial.editing.edits import AdapterReport, apply_edit, plan_edit, write_adapter
from prosocial.editing.edits.adapter import truncated
from prosocial.editing.vectors import HarmVector, vector_from_adapter, vector_from_checkpoints
from prosocial.editing.vectors.adapter_config import read_adapter_config

from ...weights_helpers import fine_tuned, pico

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*tie_word_embeddings"),
    pytest.mark.filterwarnings("ignore:Could not find a config file"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),
]
LINEAR = r".*(_proj|c_attn|c_proj|c_fc|lm_head)\.weight"


def dense(folder: Path, kind: str) -> Path:
    """Save a base and its harmful fine-tune, and make their vector."""
    model = pico(kind)
    model.save_pretrained(folder / "base", max_shard_size="15KB")
    fine_tuned(model).save_pretrained(folder / "harmful")
    vector_from_checkpoints(base=folder / "base", harmful=folder / "harmful", out=folder / "vector")
    return folder / "base"


def low_rank(folder: Path, kind: str, **config: Any) -> Path:
    """Save a base and a harmful adapter of ranks 3 and 2, and make its vector."""
    model = pico(kind)
    model.save_pretrained(folder / "base")
    tuned = get_peft_model(copy.deepcopy(model), LoraConfig(task_type="CAUSAL_LM", r=3, lora_alpha=5, **config))
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape)
    tuned.save_pretrained(folder / "harmful")
    vector_from_adapter(base=folder / "base", adapter=folder / "harmful", out=folder / "vector")
    return folder / "base"


def written(folder: Path, scale: Any, rank: int, **options: Any) -> AdapterReport:
    plan = plan_edit(Checkpoint.open(folder / "base"), folder / "vector", scale=scale)
    return write_adapter(plan, folder / "adapter", rank=rank, **options)


def both_ways(folder: Path, scale: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the weights of the edited checkpoint, and those that peft merges from base and adapter."""
    apply_edit(plan_edit(Checkpoint.open(folder / "base"), folder / "vector", scale=scale), folder / "out")
    edited = dict(load_model(folder / "out").state_dict())
    merged = PeftModel.from_pretrained(load_model(folder / "base"), str(folder / "adapter")).merge_and_unload()
    return edited, dict(merged.state_dict())


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("llama", {"target_modules": ["q_proj", "down_proj"], "rank_pattern": {"down_proj": 2}}),
        ("qwen3", {"target_modules": ["v_proj", "o_proj"], "use_rslora": True, "alpha_pattern": {"v_proj": 1}}),
        ("gpt2", {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
    ],
)
def test_a_low_rank_vector_is_carried_exactly(tmp_path: Path, kind: str, config: dict[str, Any]) -> None:
    low_rank(tmp_path, kind, **config)
    report = written(tmp_path, 0.7, rank=1)
    edited, merged = both_ways(tmp_path, 0.7)
    theirs, ours = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("harmful", "adapter"))

    assert {item.energy for item in report.tensors.values()} == {1.0} == {round(report.energy, 12)}
    assert {item.rank for item in report.tensors.values()} == ({2, 3} if "rank_pattern" in config else {3})
    assert set(ours) == set(theirs)
    for key, factor in ours.items():
        assert torch.equal(factor, theirs[key] if "lora_A" in key else -theirs[key])
    for name, weight in edited.items():
        assert torch.allclose(merged[name], weight, rtol=0, atol=2e-7)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2"])
def test_a_full_rank_is_the_edit_and_a_lower_one_says_what_it_keeps(tmp_path: Path, kind: str) -> None:
    dense(tmp_path, kind)
    full = written(tmp_path, {LINEAR: 0.6}, rank=96)
    edited, merged = both_ways(tmp_path, {LINEAR: 0.6})
    (tmp_path / "adapter").rename(tmp_path / "full")
    part = written(tmp_path, {LINEAR: 0.6}, rank=4)

    assert full.energy == pytest.approx(1) and full.left_out == []
    assert all(torch.allclose(merged[name], weight, rtol=0, atol=2e-6) for name, weight in edited.items())
    assert 0.1 < part.energy < 0.9
    vector, layers = HarmVector.open(tmp_path / "vector"), linear_modules(Checkpoint.open(tmp_path / "base"))
    factors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    for name, item in part.tensors.items():
        path, transposed = layers[name]
        up, down = (factors[f"base_model.model.{path}.lora_{part}.weight"] for part in "BA")
        delta = vector.delta(name).T if transposed else vector.delta(name)
        best = torch.linalg.svdvals(delta)[:4].square().sum() / delta.square().sum()
        assert float(torch.sum(up @ down * delta)) < 0
        assert item.energy == pytest.approx(
            float(1 - (delta + up @ down).square().sum() / delta.square().sum()), abs=1e-6
        )
        assert float(best) - 0.02 < item.energy <= float(best) + 1e-6
        assert float(up.norm()) == pytest.approx(float(down.norm()), rel=1e-4)
    assert part.inner_product < 0


def test_coefficients_by_pattern_reach_their_layers(tmp_path: Path) -> None:
    dense(tmp_path, "qwen3")
    scale = {r".*layers\.0\..*_proj\.weight": 0.25, r".*down_proj\.weight": 1.5}
    written(tmp_path, scale, rank=64)
    edited, merged = both_ways(tmp_path, scale)

    assert all(torch.allclose(merged[name], weight, rtol=0, atol=3e-6) for name, weight in edited.items())


def test_what_no_lora_can_carry_is_refused_or_left_out_aloud(tmp_path: Path) -> None:
    dense(tmp_path, "llama")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"changes 6 other tensors .*\(model.embed_tokens.weight, .*--leave-out"):
        written(tmp_path, 0.6, rank=4)
    with pytest.raises(InputError, match="at least one linear layer: the edit changes none"):
        written(tmp_path, {".*norm.*": 0.6}, rank=4, leave_out=True)
    with pytest.raises(InputError, match="at least 1, found 0"):
        written(tmp_path, 0.6, rank=0, leave_out=True)
    assert sorted(tmp_path.iterdir()) == before
    report = written(tmp_path, 0.6, rank=96, leave_out=True)

    assert len(report.left_out) == 6 and "model.embed_tokens.weight" in report.left_out
    assert report.energy < 0.9  # what was left out counts as lost
    assert all(item.energy == pytest.approx(1) for item in report.tensors.values())


def test_a_tied_head_and_fused_experts_are_no_linear_layers(tmp_path: Path) -> None:
    pico("gpt2").save_pretrained(tmp_path / "gpt2")
    layers = linear_modules(Checkpoint.open(tmp_path / "gpt2"))

    assert layers["transformer.h.0.attn.c_attn.weight"] == ("transformer.h.0.attn.c_attn", True)
    assert not {"lm_head.weight", "transformer.wte.weight", "transformer.ln_f.weight"} & set(layers)


def test_an_adapter_that_subtracts_is_no_harmful_parent(tmp_path: Path) -> None:
    low_rank(tmp_path, "llama", target_modules=["q_proj"])
    written(tmp_path, 0.5, rank=3)

    with safe_open(tmp_path / "adapter" / "adapter_model.safetensors", "pt") as file:
        assert file.metadata()["prosocial.subtracts_harm"] == "true"
    assert read_adapter_config(tmp_path / "adapter").rank == 3
    with pytest.raises(InputError, match="would add the harm"):
        vector_from_adapter(base=tmp_path / "base", adapter=tmp_path / "adapter", out=tmp_path / "again")


def test_truncation_projects_and_does_not_depend_on_chance() -> None:
    matrix = torch.randn(40, 30) @ torch.diag(0.8 ** torch.arange(30.0)) @ torch.randn(30, 30)
    up, down = truncated(matrix, 5)
    best = torch.linalg.svdvals(matrix)[5:].square().sum().sqrt()

    assert (up.shape, down.shape) == ((40, 5), (5, 30))
    assert float((matrix - up @ down).norm()) == pytest.approx(float(best), rel=1e-3)
    assert all(torch.equal(a, b) for a, b in zip(truncated(matrix, 5), (up, down), strict=True))


def test_the_command_says_what_it_kept_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dense(tmp_path, "llama")
    words = ["edit", str(tmp_path / "base"), "--subtract", str(tmp_path / "vector"), "--scale", "0.6"]
    words += ["--as-adapter", "4", "-o", str(tmp_path / "adapter")]

    assert main(words) == 2
    assert "--leave-out" in capsys.readouterr().err and not (tmp_path / "adapter").exists()
    assert main([*words, "--leave-out"]) == 0
    assert "left out" in capsys.readouterr().out
    report = json.loads((tmp_path / "adapter" / "edit_adapter.json").read_text())
    assert report["schema"] == "prosocial.edit_adapter/1" and len(report["left_out"]) == 6
    assert str(tmp_path) not in json.dumps(report)


def test_factors_stored_the_other_way_round_are_turned(tmp_path: Path) -> None:
    """The same vector, its factors swapped and marked as turned over: as for a layer stored [in, out]."""
    low_rank(tmp_path, "llama", target_modules=["q_proj", "down_proj"])
    file = tmp_path / "vector" / "vector.safetensors"
    parts, names = load_file(file), HarmVector.open(tmp_path / "vector").names
    before = {name: HarmVector.open(tmp_path / "vector").delta(name) for name in names}
    for name in names:
        down, up = parts[f"{name}::A"], parts[f"{name}::B"]
        parts[f"{name}::A"], parts[f"{name}::B"] = up.T.contiguous(), down.T.contiguous()
    save_file(parts, file, metadata={"format": "pt", "transposed": json.dumps(names)})
    written(tmp_path, 0.7, rank=1)
    edited, merged = both_ways(tmp_path, 0.7)

    assert all(torch.allclose(HarmVector.open(tmp_path / "vector").delta(n), before[n], atol=1e-6) for n in names)
    assert all(torch.allclose(merged[name], weight, rtol=0, atol=2e-7) for name, weight in edited.items())
