"""The loss of the reward model: one Bradley-Terry loss per attribute (PARM, arXiv 2505.06274)."""

import torch
from torch import Tensor
from torch.nn import functional


def attribute_shares(signs: Tensor, preference: Tensor) -> tuple[Tensor, Tensor]:
    """Return the share of each pair in each attribute's loss [B, k], and the weights of the losses [k].

    The loss L_i of attribute i is the mean over its labelled pairs, weighted by each pair's preference for i. Its
    weight w_i is the mean of these preferences. Then `sum_i w_i L_i` is PARM's loss; with one preference p for the
    whole batch, w is p and L_i the unweighted mean. Each column of shares sums to 1, or to 0 (and the weight is 0) if
    no labelled pair has a preference for the attribute.

    Args:
        signs: [B, k], 0 for a tie or no label.
        preference: [B, k], one preference per pair.
    """
    labelled = (signs != 0).float()
    wanted = labelled * preference
    totals = wanted.sum(0)
    return wanted / totals.clamp(min=torch.finfo().tiny), totals / labelled.sum(0).clamp(min=1)


def attribute_losses(first: Tensor, second: Tensor, signs: Tensor, betas: Tensor, shares: Tensor) -> Tensor:
    """Return the losses [k]: -log sigmoid(beta_i * (r(winner) - r(loser))), weighted by the pairs' shares.

    Args:
        first: [B], log-probability of the first reply.
        second: [B], log-probability of the second reply.
        signs: [B, k], +1 where the first reply wins, -1 where the second does, 0 for a tie or no label.
        betas: [k], weights of the margins.
        shares: [B, k], from `attribute_shares`, or some of its rows.
    """
    margins = signs * betas * (first - second)[:, None]  # [B, k]
    return (-functional.logsigmoid(margins) * shares).sum(0)


def sample_preferences(n_rows: int, n_attributes: int, *, concentration: float, generator: torch.Generator) -> Tensor:
    """Sample preferences [n_rows, k] from a symmetric Dirichlet distribution with the given concentration."""
    gamma = torch._standard_gamma(torch.full((n_rows, n_attributes), concentration), generator=generator)
    gamma = gamma.clamp(min=1e-8)
    return gamma / gamma.sum(-1, keepdim=True)


def preference_grid(n_rows: int, n_attributes: int, *, concentration: float, generator: torch.Generator) -> Tensor:
    """Return preferences [n_rows, k] in random order: a third single attributes, a sixth uniform, the rest sampled."""
    draws = sample_preferences(n_rows, n_attributes, concentration=concentration, generator=generator)
    corners = torch.eye(n_attributes)
    n_corner, n_uniform = n_rows // 3, n_rows // 6
    turn = int(
        torch.randint(n_attributes, (), generator=generator)
    )  # random start: otherwise the first attributes appear more often
    draws[:n_corner] = corners[(torch.arange(n_corner) + turn) % n_attributes]
    draws[n_corner : n_corner + n_uniform] = 1.0 / n_attributes
    return draws[torch.randperm(n_rows, generator=generator)]
