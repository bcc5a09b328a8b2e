"""Guided decoding with one backbone for base and reward model: one batch of 2B rows, so weights are read once."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from prosocial.core.errors import InputError
from prosocial.training.reward import RewardModel

from .formulas import contrast, weighted_product
from .guide import require_preference

PER_ROW = ("input_ids", "attention_mask", "position_ids")


@contextmanager
def shared_rows(
    reward: RewardModel, preference: Tensor, *, weight: float | Tensor = 1.0, log_ratio: bool = False
) -> Iterator[Any]:
    """Make the reward model's language model decode with guidance inside a `with` block, which yields the model.

    Use it as `with shared_rows(...) as model: model.generate(...)`. Every row runs twice in one batch, unadapted and
    under its preference, so the weights are read once per token and the cache doubles. Supports greedy decoding and
    sampling, not beam search, which reorders rows of the cache.

    Args:
        reward: a reward model whose unadapted model is the base.
        preference: [B, k] preference of each row of the batch.
        weight: 1 / beta, for all rows or [B].
        log_ratio: as in `parm`.

    Raises:
        InputError: a preference is not on the simplex, or the batch has another size.
    """
    require_preference(reward, preference)
    n_rows, model = len(preference), reward.model
    device: Any = model.device
    preference = preference.to(device)
    weights = torch.as_tensor(weight, dtype=torch.float32, device=device).reshape(-1)

    def double(module: nn.Module, arguments: tuple[Any, ...], given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if len(given["input_ids"]) != n_rows:
            raise InputError(f"there should be one preference per row, found {n_rows} for {len(given['input_ids'])}")
        return arguments, given | {name: _twice(given[name], n_rows) for name in PER_ROW if name in given}

    def combine(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
        own, adapted = output.logits.float().split(n_rows)  # [B, S, V] each
        if log_ratio:
            output.logits = contrast(own, adapted, own, weights[:, None])
        else:
            output.logits = weighted_product(own, [adapted], weights[:, None, None])
        return output

    with ExitStack() as stack:
        stack.enter_context(reward.use(torch.cat([torch.zeros_like(preference), preference])))
        for hook in (
            model.register_forward_pre_hook(double, with_kwargs=True),
            model.register_forward_hook(combine),
        ):
            stack.callback(hook.remove)
        yield model


def _twice(value: Any, n_rows: int) -> Any:
    """Return a tensor with its rows repeated; values without one row per batch row are returned unchanged."""
    return torch.cat([value, value]) if isinstance(value, Tensor) and len(value) == n_rows else value
