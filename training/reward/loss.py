"""The reward model's loss: one Bradley-Terry loss per attribute on the same two log-probabilities (PARM)."""

import torch
from torch import Tensor
from torch.nn import functional


def reply_log_probability(logits: Tensor, next_ids: Tensor, predicts_reply: Tensor) -> Tensor:
    """Return [B] the summed log-probability of each row's reply: r_p(x, y) = sum_t log pi_p(y_t | x, y_<t).

    Args:
        logits: [B, S, V].
        next_ids: [B, S] the token that follows each position.
        predicts_reply: [B, S] True where that token belongs to the reply.
    """
    chosen = logits.float().log_softmax(-1).gather(-1, next_ids[..., None]).squeeze(-1)  # [B, S]
    return (chosen * predicts_reply).sum(-1)


def attribute_shares(signs: Tensor, preference: Tensor) -> tuple[Tensor, Tensor]:
    """Return how much each pair counts in each attribute's loss, [B, k] with columns that sum to 1, and [k] weights.

    Attribute i's loss L_i is the mean over its labelled pairs, each as heavy as the pair's own preference for i; its
    weight w_i is their mean preference. `sum_i w_i L_i` is PARM's loss, and with one preference p for the whole batch w
    is p and L_i the plain mean. An attribute without a labelled pair that wants it has shares and weight 0.

    Args:
        signs: [B, k] 0 for a tie or no label.
        preference: [B, k].
    """
    labelled = (signs != 0).float()
    wanted = labelled * preference
    totals = wanted.sum(0)
    return wanted / totals.clamp(min=torch.finfo().tiny), totals / labelled.sum(0).clamp(min=1)


def attribute_losses(first: Tensor, second: Tensor, signs: Tensor, betas: Tensor, shares: Tensor) -> Tensor:
    """Return [k]: -log sigmoid(beta_i * (r(winner) - r(loser))), summed over the pairs by their shares.

    Args:
        first: [B] log-probability of the first reply.
        second: [B] of the second.
        signs: [B, k] +1 where the first wins, -1 where the second does, 0 for a tie or no label.
        betas: [k].
        shares: [B, k] from `attribute_shares`, or some of its rows.
    """
    margins = signs * betas * (first - second)[:, None]  # [B, k]
    return (-functional.logsigmoid(margins) * shares).sum(0)


def sample_preferences(n_rows: int, n_attributes: int, *, concentration: float, generator: torch.Generator) -> Tensor:
    """Draw [n_rows, k] preferences from a symmetric Dirichlet with the given concentration."""
    gamma = torch._standard_gamma(torch.full((n_rows, n_attributes), concentration), generator=generator)
    gamma = gamma.clamp(min=1e-8)
    return gamma / gamma.sum(-1, keepdim=True)


def preference_grid(n_rows: int, n_attributes: int, *, concentration: float, generator: torch.Generator) -> Tensor:
    """Return [n_rows, k]: a third corners, a sixth uniform, the rest Dirichlet draws, in random order."""
    draws = sample_preferences(n_rows, n_attributes, concentration=concentration, generator=generator)
    corners = torch.eye(n_attributes)
    n_corner, n_uniform = n_rows // 3, n_rows // 6
    turn = int(torch.randint(n_attributes, (), generator=generator))  # or else the first attributes get more corners
    draws[:n_corner] = corners[(torch.arange(n_corner) + turn) % n_attributes]
    draws[n_corner : n_corner + n_uniform] = 1.0 / n_attributes
    return draws[torch.randperm(n_rows, generator=generator)]
