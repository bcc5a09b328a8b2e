"""Pico models that guide one another, and what they should say, written without a cache."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList, PreTrainedModel

from prosocial.evaluation.guided import GuidedProcessor
from prosocial.training.reward import RewardConfig, RewardModel

from ...architectures import CONFIGS, random_model

KINDS = ["llama", "qwen3", "gemma 2"]
NAMES = ("empathy", "helpfulness")
PREFERENCES = torch.tensor([[1.0, 0.0], [0.25, 0.75], [0.5, 0.5]])
N_NEW = 6
Forward = Callable[[Tensor], Tensor]  # from ids [1, S] to next-token logits [V], no cache


def make_reward(model: PreTrainedModel, names: tuple[str, ...] = NAMES, *, seed: int = 0) -> RewardModel:
    """Return a reward model whose adapter says something."""
    reward = RewardModel(model, RewardConfig(attributes=names, targets=r".*(v_proj|gate_proj)", alpha=16.0))
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in reward.parameters:
            parameter.add_(0.5 * torch.randn_like(parameter))
    return reward


def prompts() -> tuple[list[Tensor], Tensor, Tensor]:
    """Return three prompts of 3, 7 and 5 tokens, and the same padded on the left with their mask."""
    torch.manual_seed(11)
    alone = [torch.randint(5, 190, (1, length)) for length in (3, 7, 5)]
    ids = torch.cat([torch.nn.functional.pad(row, (7 - row.shape[1], 0), value=1) for row in alone])
    mask = torch.cat([torch.nn.functional.pad(torch.ones_like(row), (7 - row.shape[1], 0)) for row in alone])
    return alone, ids, mask


@torch.no_grad()
def greedy_without_cache(score: Forward, prompt: Tensor) -> list[int]:
    """Decode by the formula, every token of every model read anew."""
    ids = prompt
    for _ in range(N_NEW):
        ids = torch.cat([ids, score(ids).argmax().reshape(1, 1)], 1)
    return [int(token) for token in ids[0, prompt.shape[1] :]]


def plain(model: Any) -> Forward:
    return lambda ids: model(input_ids=ids, use_cache=False).logits[0, -1].float()


def under(reward: RewardModel, preference: Tensor | None) -> Forward:
    given = None if preference is None else preference[None]
    return lambda ids: reward.logits(ids, torch.ones_like(ids), given)[0, -1].float()


def generated(
    model: Any, processor: GuidedProcessor | None, ids: Tensor, mask: Tensor, **options: Any
) -> list[list[int]]:
    out = model.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=N_NEW,
        min_new_tokens=N_NEW,
        logits_processor=LogitsProcessorList([] if processor is None else [processor]),
        pad_token_id=1,
        eos_token_id=None,
        **({"do_sample": False} | options),
    )
    return [[int(token) for token in row[ids.shape[1] :]] for row in out]


class World:
    """A base, a reward model of the same base, two more models of the architecture, and one too sure of itself."""

    def __init__(self, pico: Any, kind: str) -> None:
        self.base = make_model(pico, kind)
        self.reward = make_reward(make_model(pico, kind))
        self.others = [make_model(pico, kind, seed=seed) for seed in (1, 2)]
        self.unsafe = make_model(pico, kind)
        embedding: Any = self.unsafe.get_output_embeddings()  # type: ignore[no-untyped-call]  # untyped there
        embedding.register_forward_hook(lambda module, arguments, logits: 1.4 * logits)


def make_model(pico: Any, kind: str, *, seed: int = 0) -> PreTrainedModel:
    if kind not in CONFIGS:
        model: PreTrainedModel = pico.model(kind, seed=seed)
        return model
    model = random_model(kind)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters() if seed else ():
            parameter.copy_(parameter[torch.randperm(len(parameter))])
    return model
