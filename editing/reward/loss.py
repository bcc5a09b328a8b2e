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


def attribute_losses(
    first: Tensor, second: Tensor, signs: Tensor, betas: Tensor, *, weights: Tensor | None = None
) -> Tensor:
    """Return [k]: the mean of -log sigmoid(beta_i * (r(winner) - r(loser))) over the pairs labelled for attribute i.

    Args:
        first: [B] log-probability of the first reply.
        second: [B] of the second.
        signs: [B, k] +1 where the first wins, -1 where the second does, 0 for a tie or no label (left out).
        betas: [k].
        weights: [B, k] the preference of each row, which multiplies its losses; None: 1 everywhere.
    """
    margins = signs * betas * (first - second)[:, None]  # [B, k]
    labelled = (signs != 0).float()
    weighted = labelled if weights is None else labelled * weights
    return (-functional.logsigmoid(margins) * weighted).sum(0) / labelled.sum(0).clamp(min=1)


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
    draws[:n_corner] = corners[torch.arange(n_corner) % n_attributes]
    draws[n_corner : n_corner + n_uniform] = 1.0 / n_attributes
    return draws[torch.randperm(n_rows, generator=generator)]
