"""Log-probabilities of replies are those of the whole logits, with the same gradients and without making them."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from prosocial.core.batches import EncodedReply, ReplyBatch, pad_replies
from prosocial.steering.backbone import Backbone
from prosocial.training import reply_log_probability as module
from prosocial.training.reply_log_probability import linear_log_probability, reply_log_probability

from ..architectures import SIZE, random_model
from ..largest_tensor import LargestTensor

REPLIES = [EncodedReply((3, 7, 11), (4, 9, 30, 2)), EncodedReply((5, 8), (20, 2, 9, 77, 60, 1))]


def direct(model: Any, batch: ReplyBatch) -> Tensor:
    """The way through all logits."""
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits.float()
    chosen = logits.log_softmax(-1).gather(-1, batch.next_ids[..., None]).squeeze(-1)
    return (chosen * batch.predicts_reply).sum(-1)


@pytest.fixture
def in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_POSITIONS", 3)
    monkeypatch.setattr(module, "MOST_LOGITS", 20)


@pytest.mark.usefixtures("in_small_blocks")
@pytest.mark.parametrize("name", ["llama 3", "qwen3", "gemma 2", "cohere", "gpt-2"])  # soft-cap, scale, tied weights
def test_values_and_gradients_are_those_of_all_logits(name: str) -> None:
    model, batch = random_model(name), pad_replies(REPLIES, [0, 1], pad_id=1)
    weights = torch.tensor([1.0, -2.0])
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    found = reply_log_probability(Backbone(model), batch)
    expected = direct(model, batch)

    assert torch.allclose(found, expected, atol=1e-4)
    ours, theirs = (torch.autograd.grad(weights @ value, parameters) for value in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-3 * float(other.abs().max() + 1))


@pytest.mark.usefixtures("in_small_blocks")
@pytest.mark.parametrize("soft_cap", [0.0, 3.0])
def test_its_gradients_are_those_of_finite_differences(soft_cap: float) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((7, 4), (9, 4), (9,))
    )
    next_ids = torch.tensor([0, 8, 3, 3, 5, 1, 7])

    def value(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return linear_log_probability(hidden, weight, bias, next_ids, scale=0.7, soft_cap=soft_cap)

    assert torch.autograd.gradcheck(value, (hidden, weight, bias))
    frozen = (weight.detach(), bias.detach())
    assert torch.autograd.gradcheck(lambda hidden: value(hidden, *frozen), (hidden,))
    assert torch.equal(value(hidden.detach(), *frozen), value(hidden, weight, bias))


@pytest.mark.parametrize("is_trained", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_tensor_is_as_large_as_the_logits_of_the_replies(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, is_trained: bool
) -> None:
    monkeypatch.setattr(module, "MOST_LOGITS", 1000)
    model: Any = LlamaForCausalLM(LlamaConfig(**SIZE | {"vocab_size": 2000, "tie_word_embeddings": False})).to(dtype)
    batch = pad_replies(REPLIES * 16, range(32), pad_id=1)
    backbone, n_logits = Backbone(model), int(batch.predicts_reply.sum()) * 2000
    model.lm_head.weight.requires_grad_(is_trained)
    with LargestTensor() as largest:
        reply_log_probability(backbone, batch).sum().backward()
    with LargestTensor() as whole:  # the control
        direct(model, batch).sum().backward()

    assert largest.numel < n_logits < whole.numel, largest.made_by


@pytest.mark.usefixtures("in_small_blocks")
def test_a_frozen_embedding_gives_the_gradients_of_a_trained_one() -> None:
    model, batch = random_model("gemma 2"), pad_replies(REPLIES, [0, 1], pad_id=1)
    found = []
    for is_trained in (True, False):
        model.get_output_embeddings().weight.requires_grad_(is_trained)
        value = reply_log_probability(Backbone(model), batch).sum()
        found.append(torch.autograd.grad(value, [model.model.layers[0].mlp.down_proj.weight])[0])

    assert torch.allclose(*found, atol=1e-4)
