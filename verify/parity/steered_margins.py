"""Margins of the reference's decisions: how far each token is from the limits of the safe set (torch)."""

from collections.abc import Sequence

import numpy as np
import torch

from prosocial.steering.decoding.controls import ControlArrays
from prosocial.steering.lexicographic import admissible, as_controls, candidate_risk, disallowed_risk
from prosocial.steering.plausible import plausible
from prosocial.steering.steered_model import SteeredModel

from .engines import Margins

BEYOND = 16  # candidates past the K-th whose risk is also computed, because rounding could make them plausible


class SteeredMargins:
    """Computes the margins of a steered model's decisions in one pass over the tokens.

    Args:
        steered: the reference model.
    """

    def __init__(self, steered: SteeredModel) -> None:
        self._steered = steered

    @torch.inference_mode()
    def __call__(self, ids: Sequence[int], n_last: int, controls: ControlArrays | None) -> Margins:
        """Return margins [n_last, V] of the last `n_last` decisions on `ids`."""
        model = self._steered
        device = model.end_index.device
        given = model.default_controls() if controls is None else as_controls(controls, device)
        bounded = admissible(given, model.ceilings)
        hidden = model.backbone.hidden(torch.tensor([list(ids)], device=device))[:, -n_last:]  # [1, S, H]
        z0 = model.backbone.logits(hidden).float()  # [1, S, V]
        k, size = model.ceilings.plausible_k, z0.shape[-1]
        values, candidates = plausible(z0, k + BEYOND)
        risk = candidate_risk(model.require_gate(), hidden.float(), candidates)
        worst = disallowed_risk(risk, bounded.allowed)
        safety = torch.full_like(z0, torch.nan).scatter(-1, candidates, bounded.harm_threshold[:, None, None] - worst)
        safety[..., model.end_index] = torch.inf
        if k < size:
            plausibility = z0 - (values[..., k - 1 : k] + values[..., k : k + 1]) / 2
        else:
            plausibility = torch.full_like(z0, torch.inf)
        return Margins(_array(plausibility), _array(safety))


def _array(value: torch.Tensor) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    array: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = value[0].cpu().numpy()
    return array
