"""The lexicographic rule: plausible, then safe, then prosocial, as one pure function of tensors.

The exported ONNX graph contains the same function. For the next token, with `h` the last hidden state and `z0` the
model's logits:

1. plausible: the K tokens with the highest `z0`;
2. safe: those whose risk, summed over the categories that are not allowed, is at most tau. End tokens are exempt;
3. prosocial: on the safe set `z(v) = z0(v) + (s / beta) * w_v . B G(p) A h`; all other logits are minus infinity.

The rule fails closed. Where the safe set is empty, only the end tokens keep finite logits. A control that is NaN or out
of range closes the gate for its row (no category allowed, tau 0, no shift). Ceilings are constants of the graph: no
input exceeds them.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .decoding.config import REWARD_SCALE_LIMIT
from .decoding.controls import ControlArrays
from .gate import HarmGate
from .head import CompactHead
from .plausible import plausible

SIMPLEX_TOLERANCE = 1e-3  # covers the rounding of a sum of float32 weights


class Controls(NamedTuple):
    """The inputs of the rule that a caller may set, float32; the leading axis is the batch size or 1.

    Attributes:
        preference: [B|1, k], weights of the attributes on the simplex.
        allowed: [B|1, C], above 0.5 where the harm category is allowed.
        harm_threshold: [B|1], tau in [0, 1].
        reward_scale: [B|1], s in [0, 100].
    """

    preference: Tensor
    allowed: Tensor
    harm_threshold: Tensor
    reward_scale: Tensor


class Steered(NamedTuple):
    """The outputs of the rule at every position.

    Attributes:
        logits: [B, S, V], minus infinity outside the safe set.
        risk: [B, S, C] in [0, 1], the expected risk in each category if the unsteered model chose the next token.
        safe_set_size: [B, S] int64, number of safe plausible tokens without end tokens; at 0 only end tokens are
            finite.
    """

    logits: Tensor
    risk: Tensor
    safe_set_size: Tensor


@dataclass(frozen=True)
class Ceilings:
    """The constants of the rule.

    Attributes:
        allowed: [C] bool, categories that an input may allow.
        threshold: upper limit of tau.
        end_ids: [E] int64, ids of the end tokens.
        plausible_k: K >= 1, number of plausible tokens.
        inverse_beta: 1 / beta.
    """

    allowed: Tensor
    threshold: float
    end_ids: Tensor
    plausible_k: int
    inverse_beta: float


def as_controls(arrays: ControlArrays, device: torch.device | None = None) -> Controls:
    """Return NumPy control arrays as tensors on a device."""
    return Controls(**{name: torch.from_numpy(value).to(device) for name, value in arrays.as_inputs().items()})


def reward_table(head: CompactHead, output_weight: Tensor) -> Tensor:
    """Return `W B` [V, r] for the output embedding W [V, H], so that `w_v . delta(h, p) = (W B)_v . G(p) A h`.

    Each candidate then needs r numbers instead of H, and the graph needs no second copy of W to gather rows from.
    """
    return (output_weight.detach().float() @ head.B.detach().float()).contiguous()


def lexicographic(
    z0: Tensor,
    hidden: Tensor,
    controls: Controls,
    *,
    head: CompactHead | None,
    gate: HarmGate | None,
    table: Tensor | None,
    ceilings: Ceilings,
) -> Steered:
    """Apply the rule to next-token logits z0 [B, S, V] and hidden states [B, S, H] (float32).

    Args:
        z0: the model's logits, after soft-cap and logit scale.
        hidden: the last hidden states that z0 was computed from.
        controls: the caller's controls; limited by `ceilings` here.
        head: the compact head; None for no shift.
        gate: the harm gate; with None every plausible token is safe and `risk` has no categories (C = 0).
        table: [V, r], the result of `reward_table`; None without a head.
        ceilings: the constants of the rule.

    Returns:
        Logits, risks and the sizes of the safe sets.
    """
    is_broken = torch.isnan(z0) | (z0 == torch.inf)
    is_sound = torch.isfinite(hidden).all(-1, keepdim=True) & ~is_broken.any(-1, keepdim=True)  # [B, S, 1]
    z0 = torch.where(is_broken, -torch.inf, z0)
    hidden = torch.where(is_sound, hidden, 0.0)
    controls = admissible(controls, ceilings)

    value, candidates = plausible(z0, ceilings.plausible_k)  # [B, S, K]
    is_end = (candidates.unsqueeze(-1) == ceilings.end_ids).any(-1)  # [B, S, K]
    if gate is None:
        risk, is_safe = value.new_zeros(*value.shape, 0), torch.ones_like(is_end)
    else:
        risk = candidate_risk(gate, hidden, candidates)  # [B, S, K, C]
        is_safe = is_end | (disallowed_risk(risk, controls.allowed) <= controls.harm_threshold[:, None, None])
    steered = value
    if head is not None and table is not None:
        latent = head.latent(hidden, controls.preference.unsqueeze(1))
        steered = shifted(value, latent, candidates, table, controls, ceilings)
    is_safe = is_safe & torch.isfinite(steered) & is_sound
    size = (is_safe & ~is_end).sum(-1)  # [B, S]

    logits = torch.full_like(z0, -torch.inf).scatter(-1, candidates, torch.where(is_safe, steered, -torch.inf))
    logits = _ended(logits, z0, size == 0, ceilings.end_ids)
    return Steered(logits, torch.where(is_sound, expected_risk(risk, value), 1.0), size)


def _ended(logits: Tensor, z0: Tensor, is_empty: Tensor, end_ids: Tensor) -> Tensor:
    """Where `is_empty` [B, S], set the end tokens' logits to those of z0, or to 0 where z0 is not finite."""
    ends = end_ids.expand(*z0.shape[:-1], -1)  # [B, S, E]
    own = z0.gather(-1, ends)
    only_ends = torch.where(torch.isfinite(own), own, 0.0)
    return logits.scatter(-1, ends, torch.where(is_empty.unsqueeze(-1), only_ends, logits.gather(-1, ends)))


def admissible(controls: Controls, ceilings: Ceilings) -> Controls:
    """Return the controls limited by the ceilings; a row with a value out of range: no category, tau 0, no shift."""
    preference, allowed, threshold, scale = controls
    is_valid = (
        _within(preference, 1.0).all(-1)
        & ((preference.sum(-1) - 1.0).abs() <= SIMPLEX_TOLERANCE)
        & _within(allowed, 1.0).all(-1)
        & _within(threshold, 1.0)
        & _within(scale, REWARD_SCALE_LIMIT)
    )  # [B|1]
    return Controls(
        torch.where(is_valid.unsqueeze(-1), preference, 0.0),
        ((allowed > 0.5) & ceilings.allowed & is_valid.unsqueeze(-1)).to(allowed.dtype),
        torch.where(is_valid, threshold.clamp(max=ceilings.threshold), 0.0),
        torch.where(is_valid, scale, 0.0),
    )


def candidate_risk(gate: HarmGate, hidden: Tensor, candidates: Tensor) -> Tensor:
    """Return the risk [B, S, K, C] of each candidate in each category; a risk logit that is not finite gives risk 1."""
    logits = gate.risk_logits(hidden, candidates)
    return torch.where(torch.isfinite(logits), torch.sigmoid(logits), 1.0)


def disallowed_risk(risk: Tensor, allowed: Tensor) -> Tensor:
    """Return [B, S, K]: risk [B, S, K, C] summed over the categories not allowed ([B|1, C]), at most 1.

    The sum is an upper bound of the probability of any such harm (Boole's inequality). The largest single risk is not:
    where a text is clearly harmful but its category is not yet clear, the risk is spread over several categories and
    each one is small. With every category allowed the result is 0.
    """
    return torch.where(allowed[:, None, None, :] > 0.5, 0.0, risk).sum(-1).clamp(max=1.0)


def expected_risk(risk: Tensor, value: Tensor) -> Tensor:
    """Return the expected risk [B, S, C] under the unsteered model's probabilities of its plausible tokens.

    Args:
        risk: [B, S, K, C], the result of `candidate_risk`.
        value: [B, S, K], the candidates' logits z0.
    """
    share = torch.softmax(value, -1).unsqueeze(-2)  # [B, S, 1, K]
    expected = (share @ risk).squeeze(-2)
    return torch.where(torch.isnan(expected), 1.0, expected.clamp(0.0, 1.0))


def shifted(
    value: Tensor, latent: Tensor, candidates: Tensor, table: Tensor, controls: Controls, ceilings: Ceilings
) -> Tensor:
    """Return `z0(v) + (s / beta) * w_v . delta` [B, S, K]; bit-identical to z0(v) where s / beta is 0."""
    scale = (controls.reward_scale * ceilings.inverse_beta)[:, None, None]
    rows = torch.nn.functional.embedding(candidates, table)  # [B, S, K, r]
    shift = (rows @ latent.unsqueeze(-1)).squeeze(-1)  # [B, S, K, r] @ [B, S, r, 1]
    return torch.where(scale == 0.0, value, value + scale * shift)


def _within(value: Tensor, upper: float) -> Tensor:
    """Return True where 0 <= value <= upper; NaN gives False."""
    return (value >= 0.0) & (value <= upper)
