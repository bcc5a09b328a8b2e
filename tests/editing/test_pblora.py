"""PBLoRA: nothing at the start, linear in the preference, one preference per row."""

from pathlib import Path

import pytest
import torch

from prosocial.editing.errors import InputError
from prosocial.editing.reward.pblora import (
    PBLoRALinear,
    PreferenceContext,
    inject_pblora,
    load_pblora_state,
    pblora_state,
)

from .reward_helpers import make_model, make_tokenizer


def make_layer() -> tuple[PBLoRALinear, PreferenceContext]:
    context = PreferenceContext()
    layer = PBLoRALinear(torch.nn.Linear(6, 5), context, n_attributes=3, rank=2, preference_rank=2, alpha=4.0)
    return layer, context


def filled() -> tuple[PBLoRALinear, PreferenceContext]:
    layer, context = make_layer()
    torch.nn.init.normal_(layer.B)
    return layer, context


def test_a_new_adapter_changes_nothing() -> None:
    layer, context = make_layer()
    x = torch.randn(2, 4, 6)
    with context.use(torch.rand(2, 3)):
        assert torch.equal(layer(x), layer.base(x))


def test_the_factored_forward_is_the_full_delta() -> None:
    layer, context = filled()
    x, preference = torch.randn(1, 4, 6), torch.tensor([[0.2, 0.5, 0.3]])
    core = torch.einsum("k,krq->rq", preference[0], layer.W2)
    delta = layer.scale * (layer.B[:, :2] @ layer.W1 @ layer.A[:2] + layer.B[:, 2:] @ core @ layer.A[2:])
    with context.use(preference):
        assert torch.allclose(layer(x), layer.base(x) + x @ delta.T, atol=1e-5)


def test_the_delta_is_affine_in_the_preference() -> None:
    layer, context = filled()
    x, corners = torch.randn(1, 4, 6).expand(3, -1, -1), torch.eye(3)
    with context.use(corners):
        at_corners = layer(x)
    with context.use(torch.full((3, 3), 1 / 3)):
        assert torch.allclose(layer(x)[0], at_corners.mean(0), atol=1e-5)


def test_every_row_follows_its_own_preference() -> None:
    layer, context = filled()
    x, preference = torch.randn(3, 4, 6), torch.eye(3)
    with context.use(preference):
        together = layer(x)
    for row in range(3):
        with context.use(preference[row : row + 1]):
            assert torch.allclose(layer(x[row : row + 1])[0], together[row], atol=1e-6)


def test_without_a_preference_the_model_is_its_own_base(tmp_path: Path) -> None:
    model = make_model(make_tokenizer(tmp_path))
    ids = torch.arange(6)[None]
    before = model(input_ids=ids).logits
    context = inject_pblora(model, targets=r".*\.q_proj", n_attributes=2, rank=2, preference_rank=2, alpha=2.0)
    for name, tensor in pblora_state(model).items():
        if name.endswith(".B"):
            torch.nn.init.normal_(tensor)
    assert torch.equal(model(input_ids=ids).logits, before)
    with context.use(torch.eye(2)[:1]):
        assert not torch.equal(model(input_ids=ids).logits, before)


def test_targets_and_states_must_fit(tmp_path: Path) -> None:
    model = make_model(make_tokenizer(tmp_path))
    with pytest.raises(InputError, match="none of this model"):
        inject_pblora(model, targets="q_proj", n_attributes=2, rank=2, preference_rank=2, alpha=2.0)
    inject_pblora(model, targets=r".*\.q_proj", n_attributes=2, rank=2, preference_rank=2, alpha=2.0)
    state = pblora_state(model)
    with pytest.raises(InputError, match="does not"):
        load_pblora_state(model, {**state, "extra": torch.zeros(1)})
    name = next(iter(state))
    with pytest.raises(InputError, match="should have shape"):
        load_pblora_state(model, {**state, name: torch.zeros(1)})
