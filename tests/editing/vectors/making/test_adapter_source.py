"""The harm vector of a LoRA adapter is what peft's merge adds, bit for bit in fp32; other kinds are refused by name."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from prosocial.core.errors import ArtefactError, InputError
from prosocial.core.files import sha256_file
from prosocial.editing.checkpoints import Checkpoint
from prosocial.editing.checkpoints.fingerprint import fingerprint
from prosocial.editing.checkpoints.tensors import read_fp32
from prosocial.editing.vectors import HarmVector, vector_from_adapter
from prosocial.editing.vectors.adapter_config import read_adapter_config

from ....weights_helpers import pico

pytestmark = [
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`"),
    pytest.mark.filterwarnings("ignore:.*tie_word_embeddings"),
    pytest.mark.filterwarnings("ignore:Could not find a config file"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),
]
ATTENTION = ["q_proj", "v_proj"]
MIXED = ["q_proj", "v_proj", "down_proj"]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("llama", {"r": 4, "lora_alpha": 6, "target_modules": MIXED}),
    "rank stabilised": ("qwen3", {"r": 3, "lora_alpha": 7, "target_modules": ATTENTION, "use_rslora": True}),
    "patterns": (
        "qwen3",
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": MIXED,
            "rank_pattern": {"layers.0.self_attn.q_proj": 2, ".*down_proj": 3},
            "alpha_pattern": {"v_proj": 5, "layers.1.mlp.down_proj": 11},
        },
    ),
    "fan in fan out": (
        "gpt2",
        {"r": 4, "lora_alpha": 5, "target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True},
    ),
    "embedding": ("llama", {"r": 4, "lora_alpha": 6, "target_modules": ["embed_tokens", "q_proj"]}),
    "modules to save": (
        "qwen3",
        {"r": 4, "lora_alpha": 6, "target_modules": ATTENTION, "modules_to_save": ["lm_head", "up_proj"]},
    ),
    "bias": ("gpt2", {"r": 2, "lora_alpha": 2, "target_modules": ["c_attn"], "fan_in_fan_out": True, "bias": "all"}),
    "trainable tokens": (
        "qwen3",
        {"r": 4, "lora_alpha": 6, "target_modules": ATTENTION, "trainable_token_indices": [3, 95, 0]},
    ),
    "trainable tokens by module, tied": (
        "llama",
        {"r": 4, "lora_alpha": 6, "target_modules": ATTENTION, "trainable_token_indices": {"embed_tokens": [7, 2]}},
    ),
    "trainable tokens with dora": (
        "qwen3",
        {"r": 4, "lora_alpha": 6, "target_modules": ATTENTION, "use_dora": True, "trainable_token_indices": [5]},
    ),
    "rank stabilised patterns": (
        "llama",
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": MIXED,
            "use_rslora": True,
            "rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 5},
            "alpha_pattern": {"layers.0.self_attn.q_proj": 3},
        },
    ),
    "dora": ("qwen3", {"r": 4, "lora_alpha": 6, "target_modules": MIXED, "use_dora": True}),
    "dora fan in fan out": (
        "gpt2",
        {"r": 4, "lora_alpha": 6, "target_modules": ["c_attn"], "use_dora": True, "fan_in_fan_out": True},
    ),
}


def trained(model: Any, config: dict[str, Any]) -> Any:
    """Return a peft model whose trainable parameters were moved away from their start."""
    peft_model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **config))
    generator = torch.Generator().manual_seed(5)
    for parameter in peft_model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return peft_model


def saved(folder: Path, kind: str, config: dict[str, Any]) -> tuple[Path, Path, dict[str, torch.Tensor]]:
    """Save base and adapter; return their folders and what peft merges them to."""
    model = pico(kind)
    model.save_pretrained(folder / "base")
    peft_model = trained(copy.deepcopy(model), config)
    peft_model.save_pretrained(folder / "adapter")
    merged = peft_model.merge_and_unload()
    return folder / "base", folder / "adapter", dict(merged.state_dict())


@pytest.mark.parametrize("case", CASES)
def test_base_plus_delta_is_what_peft_merges(tmp_path: Path, case: str) -> None:
    base, adapter, merged = saved(tmp_path, *CASES[case])
    vector = vector_from_adapter(base=base, adapter=adapter, out=tmp_path / "vector")
    checkpoint = Checkpoint.open(base)
    changed = {name for name in checkpoint.tensors if not torch.equal(read_fp32(checkpoint, name), merged[name])}

    assert set(vector.names) == changed
    for name in vector.names:
        weight, summary = read_fp32(checkpoint, name), vector.summary.tensors[name]
        if summary.storage == "low_rank":
            assert torch.equal(weight + vector.delta(name), merged[name])
        else:
            assert torch.equal(vector.delta(name), merged[name] - weight)
    assert vector.base_fingerprint == fingerprint(base)
    assert vector.harmful_fingerprint == sha256_file(adapter / "adapter_model.safetensors")


def test_plain_adapters_stay_low_rank_and_others_do_not(tmp_path: Path) -> None:
    base, adapter, _ = saved(tmp_path, *CASES["embedding"])
    plain = vector_from_adapter(base=base, adapter=adapter, out=tmp_path / "plain")
    trimmed = vector_from_adapter(base=base, adapter=adapter, out=tmp_path / "t", method="top_k", density=0.1)

    assert plain.summary.kind == "low_rank" and trimmed.summary.kind == "sparse"
    assert {item.storage for item in plain.summary.tensors.values()} == {"low_rank"}
    for name in trimmed.names:
        kept = trimmed.delta(name) != 0
        assert torch.equal(trimmed.delta(name)[kept], plain.delta(name)[kept])
    pieces = torch.cat(list(plain.pieces(plain.names[0], 100)))
    assert torch.equal(pieces, plain.delta(plain.names[0]).flatten())


def test_dora_keeps_dense_deltas(tmp_path: Path) -> None:
    base, adapter, _ = saved(tmp_path, *CASES["dora"])

    assert vector_from_adapter(base=base, adapter=adapter, out=tmp_path / "v").summary.kind == "dense"


def test_an_adapter_in_half_precision_is_read_exactly(tmp_path: Path) -> None:
    base, adapter, _ = saved(tmp_path, *CASES["plain"])
    halves = {name: tensor.bfloat16() for name, tensor in load_file(adapter / "adapter_model.safetensors").items()}
    save_file(halves, adapter / "adapter_model.safetensors")
    vector = vector_from_adapter(base=base, adapter=adapter, out=tmp_path / "v")
    name = vector.names[0]
    key = f"base_model.model.{name.removesuffix('.weight')}"
    product = halves[f"{key}.lora_B.weight"].float() @ halves[f"{key}.lora_A.weight"].float() * 1.5

    assert torch.equal(vector.delta(name), product)


def test_an_embedding_that_was_replaced_counts_whole(tmp_path: Path) -> None:
    base, adapter, _ = saved(tmp_path, *CASES["embedding"])
    tensors = load_file(adapter / "adapter_model.safetensors")
    key = next(name for name in tensors if name.endswith("embed_tokens.base_layer.weight"))
    before = vector_from_adapter(base=base, adapter=adapter, out=tmp_path / "before")
    tensors[key] = tensors[key] + 0.25
    save_file(tensors, adapter / "adapter_model.safetensors")
    after = vector_from_adapter(base=base, adapter=adapter, out=tmp_path / "after")
    name = "model.embed_tokens.weight"

    assert torch.allclose(after.delta(name), before.delta(name) + 0.25, atol=1e-6)
    assert after.summary.tensors[name].storage == "dense"


@pytest.mark.parametrize(
    "indices", [[3, 95], [3, 95, 96], {"lm_head": [3, 95, 0]}, {"other.embed_tokens": [3, 95, 0]}], ids=str
)
def test_rows_must_be_those_of_the_tokens(tmp_path: Path, indices: Any) -> None:
    base, adapter, _ = saved(tmp_path, *CASES["trainable tokens"])
    other = _changed(adapter, tmp_path / "other", config={"trainable_token_indices": indices})

    with pytest.raises(ArtefactError, match=r"trainable_tokens_delta should hold \d rows of model.embed_tokens.weight"):
        vector_from_adapter(base=base, adapter=other, out=tmp_path / "v")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    base, adapter, _ = saved(tmp_path_factory.mktemp("plain"), *CASES["plain"])
    return base, adapter


def _changed(adapter: Path, folder: Path, *, config: dict[str, Any] | None = None, tensors: Any = None) -> Path:
    shutil.copytree(adapter, folder)
    if config:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | config))
    if tensors:
        path = folder / "adapter_model.safetensors"
        save_file(tensors(load_file(path)), path)
    return folder


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'"),
        ({"init_lora_weights": "olora"}, "init_lora_weights 'olora'"),
        ({"layer_replication": [[0, 1]]}, r"layer_replication=\[\[0, 1\]\]"),
        ({"trainable_token_indices": [3, 3]}, "token indices"),
        ({"trainable_token_indices": {"embed_tokens": [-1]}}, "token indices"),
        ({"target_parameters": "experts.down_proj"}, "parameters as names"),
        ({"use_qalora": True}, "use_qalora"),
        ({"lora_bias": True}, "lora_bias"),
        ({"some_new_option": 1}, "some_new_option=1"),
        ({"r": "four"}, "ranks and alphas"),
        ({"r": 0}, "integer of at least 1"),
        ({"rank_pattern": {"(": 2}}, "ranks and alphas"),
        ({"r": 3}, r"factors of shapes \(3, 48\) and \(32, 3\)"),
        ({"use_dora": True}, "supported combination of parts"),
    ],
)
def test_variants_are_refused_by_name(plain: tuple[Path, Path], tmp_path: Path, config: Any, message: str) -> None:
    base, adapter = plain

    with pytest.raises(ArtefactError, match=message):
        vector_from_adapter(base=base, adapter=_changed(adapter, tmp_path / "a", config=config), out=tmp_path / "v")
    assert not (tmp_path / "v").exists()


FIRST = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (lambda found: found | {f"{FIRST}.lora_C.weight": torch.ones(2, 2)}, r"found .*lora_C\.weight"),
        (lambda found: found | {"x.lora_A.weight": torch.ones(2, 2)}, r"found x\.lora_A\.weight"),
        (lambda found: found | {f"{FIRST}.lora_B.bias": torch.ones(2)}, r"found .*lora_B\.bias"),
        (lambda found: found | {"base_model.model.nowhere.weight": torch.ones(2)}, "wrong base"),
        (lambda found: found | {"base_model.model.lm_head.weight": torch.ones(96, 32)}, "untie the embeddings"),
        (lambda found: found | {"base_model.model.model.norm.weight": torch.ones(31)}, r"shape \(32,\), found \(31,\)"),
        (lambda found: found | {f"{FIRST}.weight": torch.ones(32, 32)}, "found down, new, up"),
        (lambda found: {n: t for n, t in found.items() if n != f"{FIRST}.lora_B.weight"}, "found down"),
        (lambda found: found | {f"{FIRST}.lora_A.weight": torch.ones(4, 30)}, r"found \(4, 30\)"),
        (lambda found: found | {f"{FIRST}.lora_A.weight": torch.ones(4, 32, dtype=torch.int32)}, "I32"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(
    plain: tuple[Path, Path], tmp_path: Path, tensors: Any, message: str
) -> None:
    base, adapter = plain

    with pytest.raises(ArtefactError, match=message):
        vector_from_adapter(base=base, adapter=_changed(adapter, tmp_path / "a", tensors=tensors), out=tmp_path / "v")


def test_pickled_nan_and_idle_adapters_are_refused(plain: tuple[Path, Path], tmp_path: Path) -> None:
    base, adapter = plain
    pickled = _changed(adapter, tmp_path / "pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(ArtefactError, match="never a pickle"):
        vector_from_adapter(base=base, adapter=pickled, out=tmp_path / "v")
    bad = _changed(adapter, tmp_path / "bad", tensors=lambda found: {n: t * float("nan") for n, t in found.items()})
    with pytest.raises(InputError, match="should be finite"):
        vector_from_adapter(base=base, adapter=bad, out=tmp_path / "v")
    idle = _changed(adapter, tmp_path / "idle", tensors=lambda found: {n: t * 0 for n, t in found.items()})
    with pytest.raises(InputError, match="nothing to subtract"):
        vector_from_adapter(base=base, adapter=idle, out=tmp_path / "v")


def test_a_base_saved_without_its_head_is_matched(tmp_path: Path) -> None:
    """GPT-2 repositories store `h.0...`, the adapter speaks of `transformer.h.0...`."""
    base, adapter, merged = saved(tmp_path, *CASES["fan in fan out"])
    tensors = {name.removeprefix("transformer."): t for name, t in load_file(base / "model.safetensors").items()}
    save_file(tensors, base / "model.safetensors")
    vector = vector_from_adapter(base=base, adapter=adapter, out=tmp_path / "v")

    assert len(vector.names) == 6
    for name in vector.names:
        assert torch.equal(tensors[name] + vector.delta(name), merged[f"transformer.{name}"])


def test_damage_to_a_low_rank_vector_is_found(plain: tuple[Path, Path], tmp_path: Path) -> None:
    base, adapter = plain
    vector = vector_from_adapter(base=base, adapter=adapter, out=tmp_path / "v")
    file = tmp_path / "v" / "vector.safetensors"
    good, name = load_file(file), vector.names[0]
    for changes, metadata, message in (
        ({f"{name}::A": torch.ones(3, 48)}, {}, "factors of one rank"),
        ({f"{name}::scale": torch.ones(2, dtype=torch.float64)}, {}, "one scale"),
        ({f"{name}::B": torch.ones(30, 4)}, {}, "of shape"),
        ({}, {"transposed": "["}, "as JSON"),
    ):
        save_file(good | changes, file, metadata=metadata)
        with pytest.raises(ArtefactError, match=message):
            HarmVector.open(tmp_path / "v")


def test_the_configuration_follows_the_last_part_of_a_name(plain: tuple[Path, Path], tmp_path: Path) -> None:
    folder = _changed(plain[1], tmp_path / "a", config={"rank_pattern": {"up": 2, "b.*": 3}, "alpha_pattern": {"c": 9}})
    config = read_adapter_config(folder)

    assert [config.expected_rank(name) for name in ("x.up", "x.set_up", "b.c", "xb.c")] == [2, 4, 3, 4]
    assert (config.scale("b.c"), config.scale("b.x"), config.scale("up")) == (3.0, 2.0, 3.0)
