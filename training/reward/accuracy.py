"""Pairwise accuracy of a reward model."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from prosocial.core.batches import halving, token_budget_batches

from .encoded_pairs import EncodedPairs
from .memory import REMEDY, pass_budget
from .model import RewardModel, uniform_preference


def pair_accuracy(
    reward: RewardModel,
    pairs: EncodedPairs,
    *,
    attributes: Sequence[str],
    pad_id: int,
    on_pairs: Callable[[int], None] = lambda n_pairs: None,
) -> dict[str, dict[str, float]]:
    """Return the pairwise accuracy for each attribute.

    Args:
        reward: the reward model.
        pairs: labelled pairs.
        attributes: names of the attributes, in the order of the preference vector.
        pad_id: token id for padding.
        on_pairs: called with the number of pairs after each pass; each pair takes k + 1 passes for k attributes.

    Returns:
        By attribute: `corner`, the accuracy under a preference for this attribute alone; `uniform`, the accuracy under
        equal weights; `n`, the number of labelled pairs (the accuracies are 0 if there is none).

    Raises:
        InputError: a pair does not fit into memory.
    """
    budget = pass_budget(reward, pairs)

    def margins_at(preference: Tensor) -> Tensor:
        return margins(reward, pairs, preference, pad_id=pad_id, budget=budget, on_pairs=on_pairs)

    at_uniform = margins_at(uniform_preference(len(attributes)))
    result: dict[str, dict[str, float]] = {}
    for index, (name, corner) in enumerate(zip(attributes, torch.eye(len(attributes)), strict=True)):
        at_corner = margins_at(corner)
        signs = pairs.signs[:, index]
        labelled = signs != 0
        result[name] = {
            "corner": _share(at_corner * signs > 0, labelled),
            "uniform": _share(at_uniform * signs > 0, labelled),
            "n": int(labelled.sum()),
        }
    return result


@torch.no_grad()
def margins(
    reward: RewardModel,
    pairs: EncodedPairs,
    preference: Tensor,
    *,
    pad_id: int,
    budget: int,
    on_pairs: Callable[[int], None] = lambda n_pairs: None,
) -> Tensor:
    """Return the margins reward(first) - reward(second) [n] of all pairs under one preference [k].

    Args:
        reward: the reward model.
        pairs: the pairs.
        preference: [k], on the simplex.
        pad_id: token id for padding.
        budget: most tokens of a forward pass, with padding.
        on_pairs: called with the number of pairs after each pass.

    Raises:
        InputError: a pair does not fit into memory.
    """

    def run(rows: list[int]) -> Tensor:
        first, second = pairs.rewards(reward, rows, preference.expand(len(rows), -1), pad_id)
        return first - second

    result = torch.empty(len(pairs))
    for batch in token_budget_batches(pairs.lengths(range(len(pairs))), budget=budget):
        for rows, differences in halving(run, batch, remedy=REMEDY):
            result[rows] = differences
            on_pairs(len(rows))
    return result


def _share(right: Tensor, labelled: Tensor) -> float:
    """Return the share of labelled pairs that are ranked right, 0 if there is none."""
    return float(right[labelled].float().mean()) if labelled.any() else 0.0
