"""Pairwise accuracy of a reward model."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .encoded_pairs import EncodedPairs
from .model import RewardModel, uniform_preference


@torch.no_grad()
def pair_accuracy(
    reward: RewardModel, pairs: EncodedPairs, *, attributes: Sequence[str], pad_id: int, batch_size: int = 64
) -> dict[str, dict[str, float]]:
    """Return the pairwise accuracy for each attribute.

    Args:
        reward: the reward model.
        pairs: labelled pairs.
        attributes: names of the attributes, in the order of the preference vector.
        pad_id: token id for padding.
        batch_size: pairs per forward pass.

    Returns:
        By attribute: `corner`, the accuracy under a preference for this attribute alone; `uniform`, the accuracy under
        equal weights; `n`, the number of labelled pairs (the accuracies are 0 if there is none).
    """
    at_uniform = margins(reward, pairs, uniform_preference(len(attributes)), pad_id=pad_id, batch_size=batch_size)
    result: dict[str, dict[str, float]] = {}
    for index, (name, corner) in enumerate(zip(attributes, torch.eye(len(attributes)), strict=True)):
        at_corner = margins(reward, pairs, corner, pad_id=pad_id, batch_size=batch_size)
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
    reward: RewardModel, pairs: EncodedPairs, preference: Tensor, *, pad_id: int, batch_size: int = 64
) -> Tensor:
    """Return the margins reward(first) - reward(second) [n] of all pairs under one preference [k]."""
    differences: list[Tensor] = []
    for start in range(0, len(pairs), batch_size):
        rows = range(start, min(start + batch_size, len(pairs)))
        first, second = pairs.rewards(reward, rows, preference.expand(len(rows), -1), pad_id)
        differences.append(first - second)
    return torch.cat(differences)


def _share(right: Tensor, labelled: Tensor) -> float:
    """Return the share of labelled pairs that are ranked right, 0 if there is none."""
    return float(right[labelled].float().mean()) if labelled.any() else 0.0
