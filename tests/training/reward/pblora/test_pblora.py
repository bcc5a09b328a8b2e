"""PBLoRA in peft: nothing at the start, affine in the preference, one preference per row, saved and merged as any."""

import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor

from prosocial.core.errors import InputError, UnknownNameError
from prosocial.training.reward.model import RewardConfig, RewardModel
from prosocial.training.reward.pblora.layer import PBLoRALinear
from prosocial.training.reward.pblora.preference import preference_vector
from prosocial.training.reward.pblora.tuner import PBLoRAConfig, n_parameters, use_preference

from ....architectures import CONFIGS, random_model

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft's
ATTRIBUTES = ["empathy", "truthfulness", "helpfulness"]
ARCHITECTURES = {
    "llama 3": r".*\.(q_proj|v_proj|down_proj)",
    "qwen3": r".*\.(q_proj|k_proj|v_proj|o_proj)",
    "gemma 3": r".*\.(q_proj|gate_proj)",
    "phi-3": r".*\.(qkv_proj|down_proj)",
}
IDS = torch.tensor([[3, 7, 11, 4, 9], [5, 5, 8, 20, 2], [30, 31, 2, 9, 12]])


def config(targets: str = ARCHITECTURES["llama 3"], **changes: Any) -> PBLoRAConfig:
    given = {"attributes": ATTRIBUTES, "target_modules": targets, "rank": 2, "preference_rank": 3, "alpha": 6.0}
    return PBLoRAConfig(**given | changes)  # type: ignore[arg-type]


def adapted(name: str = "llama 3") -> Any:
    """A model whose adapter does something."""
    model = get_peft_model(random_model(name), config(ARCHITECTURES[name]))
    generator = torch.Generator().manual_seed(1)
    for layer in layers(model):
        torch.nn.init.normal_(layer.pblora_B["default"], std=0.2, generator=generator)
    return model.eval()


def layers(model: Any) -> list[PBLoRALinear]:
    return [module for module in model.modules() if isinstance(module, PBLoRALinear)]


@torch.no_grad()
def logits(model: Any, preference: Any = None, ids: Tensor = IDS) -> Tensor:
    with use_preference(model, preference):
        found: Tensor = model(input_ids=ids).logits
    return found


def test_four_architectures_are_real_ones() -> None:
    assert len({CONFIGS[name][0] for name in ARCHITECTURES}) == 4


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_new_adapter_and_no_preference_change_nothing(name: str) -> None:
    base = random_model(name)
    with torch.no_grad():
        expected = base(input_ids=IDS).logits
    new = get_peft_model(base, config(ARCHITECTURES[name])).eval()

    assert torch.equal(logits(new, {"empathy": 1.0}), expected)
    model = adapted(name)
    assert torch.equal(logits(model), expected)
    assert torch.equal(logits(model, torch.zeros(3, 3)), expected)
    assert not torch.allclose(logits(model, {"empathy": 1.0}), expected, atol=1e-2)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_mixed_batch_equals_row_by_row(name: str) -> None:
    model = adapted(name)
    preference = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.2, 0.3, 0.5]])
    together = logits(model, preference)

    for row in range(3):
        alone = logits(model, preference[row : row + 1], IDS[row : row + 1])
        assert torch.allclose(alone[0], together[row], atol=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_peft_saves_and_loads_it(name: str, tmp_path: Path) -> None:
    model = adapted(name)
    model.save_pretrained(str(tmp_path), save_embedding_layers=False)
    again = PeftModel.from_pretrained(random_model(name), str(tmp_path)).eval()

    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".md", ".safetensors"]
    assert isinstance(again.peft_config["default"], PBLoRAConfig)
    for preference in ({"empathy": 1.0}, {"truthfulness": 2.0, "helpfulness": 1.0}):
        assert torch.equal(logits(again, preference), logits(model, preference))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_merge_is_the_adapter_at_its_preference_and_comes_off_again(name: str) -> None:
    model, preference = adapted(name), {"empathy": 0.25, "helpfulness": 0.75}
    expected, untouched = logits(model, preference), [layer.base_layer.weight.clone() for layer in layers(model)]
    with use_preference(model, preference):
        model.merge_adapter()
    with torch.no_grad():
        assert torch.allclose(model(input_ids=IDS).logits, expected, atol=1e-3)
    with pytest.raises(InputError, match="unmerge it to use another"), use_preference(model, {"empathy": 1.0}):
        pass
    model.unmerge_adapter()

    assert all(torch.equal(layer.base_layer.weight, old) for layer, old in zip(layers(model), untouched, strict=True))
    assert torch.equal(logits(model, preference), expected)


def test_a_corner_equals_the_adapter_of_that_attribute_alone() -> None:
    """A LoRA with the factors A and B W is an implementation of another hand."""
    model = adapted()
    for index, name in enumerate(ATTRIBUTES):
        lora = get_peft_model(
            random_model("llama 3"), LoraConfig(r=5, lora_alpha=10, target_modules=ARCHITECTURES["llama 3"])
        )
        single = [module for module in lora.modules() if isinstance(module, peft.tuners.lora.Linear)]
        with torch.no_grad():
            for ours, theirs in zip(layers(model), single, strict=True):
                core = torch.block_diag(ours.pblora_W1["default"], ours.pblora_W2["default"][index])
                theirs.lora_A["default"].weight.copy_(ours.pblora_A["default"])
                theirs.lora_B["default"].weight.copy_(ours.pblora_B["default"] @ core)
            expected = lora.eval()(input_ids=IDS).logits

        assert torch.allclose(logits(model, {name: 1.0}), expected, atol=1e-4)


def test_the_delta_is_affine_in_the_preference() -> None:
    layer, t = layers(adapted())[0], 0.3
    p, q = torch.tensor([0.2, 0.5, 0.3]), torch.tensor([0.9, 0.0, 0.1])
    mixed = layer.delta(t * p + (1 - t) * q, "default")

    assert torch.allclose(mixed, t * layer.delta(p, "default") + (1 - t) * layer.delta(q, "default"), atol=1e-5)
    assert not torch.allclose(layer.delta(p, "default"), layer.delta(q, "default"), atol=1e-2)


def test_the_factored_forward_is_the_full_delta() -> None:
    model, preference = adapted(), torch.tensor([[0.2, 0.5, 0.3]])
    layer = layers(model)[0]
    x = torch.randn(1, 4, layer.base_layer.in_features)
    with use_preference(model, preference):
        found = layer(x)

    assert torch.allclose(found, layer.base_layer(x) + x @ layer.delta(preference[0], "default").T, atol=1e-4)


def test_parameters_are_counted_as_in_the_paper() -> None:
    model, given = adapted(), config()
    expected = sum(n_parameters(given, layer.base_layer.weight.shape) for layer in layers(model))
    trainable, _ = model.get_nb_trainable_parameters()

    assert trainable == expected
    assert n_parameters(given, torch.Size([10, 20])) == (2 + 3) * 30 + 2**2 + 3 * 3**2


def test_only_the_adapter_is_trained() -> None:
    model = adapted()

    assert all(("pblora_" in name) == parameter.requires_grad for name, parameter in model.named_parameters())


def test_a_bfloat16_base_keeps_its_dtype_and_the_factors_theirs() -> None:
    model = get_peft_model(random_model("llama 3").to(torch.bfloat16), config())
    layer = layers(model)[0]
    torch.nn.init.normal_(layer.pblora_B["default"])
    found = logits(model, {"empathy": 1.0})

    assert found.dtype == layer.base_layer.weight.dtype == torch.bfloat16
    assert layer.pblora_A["default"].dtype == layer.pblora_W2["default"].dtype == torch.float32
    assert not torch.equal(found, logits(model))


def test_peft_switches_it_off() -> None:
    model = adapted()
    with torch.no_grad(), use_preference(model, {"empathy": 1.0}), model.disable_adapter():
        found = model(input_ids=IDS).logits

    assert torch.equal(found, logits(model))


def test_preferences_go_by_name_onto_the_simplex() -> None:
    assert preference_vector({"helpfulness": 3, "empathy": 1}, ATTRIBUTES).tolist() == [0.25, 0.0, 0.75]
    with pytest.raises(UnknownNameError, match="unknown attribute 'charm': known are empathy"):
        preference_vector({"charm": 1.0}, ATTRIBUTES)
    for weights, message in (
        ({"empathy": -1.0}, "at least 0, found empathy=-1"),
        ({"empathy": float("nan")}, "finite"),
        ({"empathy": 0.0}, "sum above 0"),
        ({}, "sum above 0"),
    ):
        with pytest.raises(InputError, match=message):
            preference_vector(weights, ATTRIBUTES)


@pytest.mark.parametrize(
    ("preference", "message"),
    [
        (torch.tensor([[0.5, 0.5, 0.5]]), r"add up to 1, or all be 0, found \[0.5, 0.5, 0.5\] in row 0"),
        (torch.tensor([[1.0, 0.0, 0.0], [1.5, -0.5, 0.0]]), "in row 1"),
        (torch.tensor([[float("nan"), 0.0, 1.0]]), "nan"),
        (torch.tensor([[0.5, 0.5]]), r"\[rows, 3\] for empathy, truthfulness, helpfulness, found \[1, 2\]"),
        (torch.tensor([1.0, 0.0, 0.0]), r"found \[3\]"),
    ],
)
def test_a_preference_off_the_simplex_is_refused(preference: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message), use_preference(adapted(), preference):
        pass


def test_what_does_not_fit_is_said_in_one_line() -> None:
    with pytest.raises(InputError, match="different names"):
        config(attributes=["empathy", "empathy"])
    with pytest.raises(InputError, match="at least 1, found 0 and 3"):
        config(rank=0)
    with pytest.raises(InputError, match="adapts linear layers, found Embedding"):
        get_peft_model(random_model("llama 3"), config(targets=r".*embed_tokens"))
    with pytest.raises(InputError, match="should have a PBLoRA adapter"), use_preference(random_model("llama 3"), None):
        pass
    with pytest.raises(InputError, match="one preference: wrap it in use_preference"):
        adapted().merge_adapter()


def test_its_registration_leaves_the_other_methods_alone() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert peft.PeftType("PBLORA") is peft.PeftType.PBLORA
        assert peft.PeftType("LORA") is peft.PeftType.LORA
        assert "PBLORA" in [member.value for member in peft.PeftType]


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_one_backward_pass_gives_the_gradients_of_several_functions(name: str, checkpointing: bool) -> None:
    reward = RewardModel(random_model(name), RewardConfig(tuple(ATTRIBUTES), ARCHITECTURES[name], rank=2))
    for layer in layers(reward.peft):
        torch.nn.init.normal_(layer.pblora_B["default"], std=0.2, generator=torch.Generator().manual_seed(1))
    if checkpointing:
        reward.recompute_activations()
    preference, mask = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.2, 0.3, 0.5]]), torch.ones_like(IDS)
    functions = torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 1.0]])

    def results() -> Tensor:
        return reward.logits(IDS, mask, preference).log_softmax(-1)[..., 7].sum(-1)

    with reward.use(preference):
        expected = [torch.autograd.grad(row @ results(), reward.parameters) for row in functions]
        with reward.tell_rows_apart() as jacobian:
            jacobian.backward(results(), functions)

    assert max(float(gradient.abs().max()) for gradient in expected[0]) > 1e-2
    for parameter, *rows in zip(reward.parameters, *expected, strict=True):
        assert parameter.grad is None and torch.allclose(jacobian.rows[parameter], torch.stack(rows), atol=1e-5)
