"""Conflicting gradients: how the gradients g_i of k losses are combined into one step, sum_i v_i g_i.

Each method is applied to the gradients of the unweighted losses and its result is weighted by the preference p:

    none      v = p
    pcgrad    each g_i is projected off the gradients it conflicts with, and weighted by p_i
    upgrad    each p_i g_i is projected onto the dual cone of all gradients (torchjd's pref_vector is p)
    cagrad, mgda, nash_mtl, famo
              v is p * a, scaled to the sum of p, where a are the method's weights

An attribute with p_i = 0 is left out. Hence every method gives the step g_i at p = e_i, and its unmodified direction at
equal preferences.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prosocial.core.errors import MissingExtraError, UnknownNameError

Floats = NDArray[np.float64]
RIDGE = 1e-6  # added to the diagonal of the cosine matrix, so that opposed gradients have a unique solution
CAGRAD_RADIUS = 0.5  # c in the CAGrad paper
MAX_NEWTON_STEPS = 100


def combination(gramian: Tensor, preference: Tensor, *, method: str, seed: int = 0) -> Tensor:
    """Return the weights v [k] of the gradients in the step.

    Args:
        gramian: [k, k], inner products of the gradients of the unweighted losses.
        preference: [k], weights of the losses, at least 0.
        method: one of GRAMIAN_METHODS.
        seed: seed of the order of pcgrad's projections.

    Raises:
        UnknownNameError: the method is unknown.
        MissingExtraError: the method needs a package that is not installed (the message names the extra).

    Examples:
        >>> combination(torch.eye(2), torch.tensor([0.75, 0.25]), method="none")
        tensor([0.7500, 0.2500])
    """
    if method not in GRAMIAN_METHODS:
        raise UnknownNameError("conflict method", method, GRAMIAN_METHODS)
    carried = preference > 0
    weights = torch.zeros_like(preference)
    if not carried.any():
        return weights
    gram, wanted = gramian.double()[carried][:, carried].cpu(), preference.double()[carried].cpu()
    weights[carried] = GRAMIAN_METHODS[method](gram, wanted, seed).to(weights)
    return weights


def weighted_after(own: Tensor, preference: Tensor) -> Tensor:
    """Return preference * own [k], scaled to the sum of the preference; zeros if the product is zero."""
    product = preference * own.clamp(min=0)
    total = product.sum()
    return product * (preference.sum() / total) if total > 0 else torch.zeros_like(preference)


def conflicting_share(gramian: Tensor) -> float:
    """Return the share of gradient pairs with a negative inner product, from the Gramian [k, k]."""
    upper = torch.triu_indices(len(gramian), len(gramian), offset=1)
    return float((gramian[upper[0], upper[1]] < 0).float().mean()) if upper.shape[1] else 0.0


def _none(gramian: Tensor, preference: Tensor, seed: int) -> Tensor:
    """The weighted sum, as in PARM (arXiv 2505.06274)."""
    return preference


def _pcgrad(gramian: Tensor, preference: Tensor, seed: int) -> Tensor:
    """PCGrad (Yu et al., arXiv 2001.06782) on the gradients p_i g_i; the projections scale by p_i."""
    from torchjd.aggregation import PCGradWeighting

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights: Tensor = PCGradWeighting()(preference[:, None] * gramian * preference)
    return preference * weights


def _upgrad(gramian: Tensor, preference: Tensor, seed: int) -> Tensor:
    """UPGrad (Quinton and Rey, arXiv 2406.16232): the step conflicts with no gradient."""
    from torchjd.aggregation import UPGradWeighting

    projector: Any = project_on_dual_cone  # torchjd only calls it, so that a function will do
    weights: Tensor = UPGradWeighting(pref_vector=preference, projector=projector)(gramian)
    return weights


def _cagrad(gramian: Tensor, preference: Tensor, seed: int) -> Tensor:
    """CAGrad (Liu et al., arXiv 2110.14048): the best worst case in a ball around the mean gradient."""
    try:
        from torchjd.aggregation import CAGradWeighting

        weighting = CAGradWeighting(c=CAGRAD_RADIUS)
    except ImportError:
        raise MissingExtraError("cvxpy", "cagrad") from None
    scale = gramian.diagonal().mean()  # the solver fails if the trace is below 1e-4
    return weighted_after(weighting(gramian / scale) if scale > 0 else preference, preference)


def _mgda(gramian: Tensor, preference: Tensor, seed: int) -> Tensor:
    """MGDA (Desideri 2012): the minimum-norm point in the convex hull of the gradients."""
    from torchjd.aggregation import MGDAWeighting

    return weighted_after(MGDAWeighting()(gramian), preference)


def _nash_mtl(gramian: Tensor, preference: Tensor, seed: int) -> Tensor:
    """Nash-MTL (Navon et al., arXiv 2202.01017): the bargaining solution G a = 1 / a."""
    return weighted_after(torch.from_numpy(bargaining_solution(gramian.numpy())), preference)


# Methods that need the inner products of the gradients; FAMO needs only the losses (`famo.py`).
GRAMIAN_METHODS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "none": _none,
    "pcgrad": _pcgrad,
    "cagrad": _cagrad,
    "mgda": _mgda,
    "nash_mtl": _nash_mtl,
    "upgrad": _upgrad,
}
CONFLICT_METHODS = (*GRAMIAN_METHODS, "famo")


def bargaining_solution(gramian: Floats) -> Floats:
    """Return the weights a > 0 with G a = 1 / a (elementwise), by Newton's method.

    They minimise the strictly convex function `a G a / 2 - sum log a`. torchjd's solver is not used: it needs ecos
    (GPL) and falls back to equal weights if its linearisation fails.

    Examples:
        >>> bargaining_solution(np.diag([4.0, 1.0])).round(3).tolist()
        [0.5, 1.0]
    """
    gram, norms = _cosines(gramian)
    weights = np.ones(len(gram))
    for _ in range(MAX_NEWTON_STEPS):
        slope = gram @ weights - 1 / weights
        step = np.linalg.solve(gram + np.diag(1 / weights**2), slope)
        decrement = np.sqrt(max(0.0, float(slope @ step)))
        if decrement < 1e-10:
            break
        weights = weights - step / (1 + decrement)  # damping keeps it positive: the function is self-concordant
    return weights / norms


def project_on_dual_cone(wanted: Tensor, gramian: Tensor) -> Tensor:
    """Return, for each row u of `wanted` [..., k], the v >= u that minimises v G v.

    With G = J J^T, `v @ J` is the projection of `u @ J` onto the dual cone: the vectors that conflict with no row of J.
    It replaces torchjd's projector, which needs quadprog (GPL).
    """
    gram, norms = _cosines(gramian.double().cpu().numpy())
    rows = wanted.double().cpu().numpy().reshape(-1, len(gram))
    projected = np.stack([row + _least_addition(gram, gram @ (norms * row)) / norms for row in rows])
    return torch.from_numpy(projected).reshape(wanted.shape).to(wanted)


def _least_addition(gram: Floats, slope: Floats) -> Floats:
    """Return the s >= 0 that minimises `s G s / 2 + slope s` (non-negative least squares, Lawson and Hanson 1974)."""
    solution, free = np.zeros_like(slope), np.zeros(len(slope), dtype=bool)
    tolerance = 1e-12 * (np.abs(slope).max() + np.finfo(float).tiny)
    while True:
        gradient = np.where(free, 0.0, gram @ solution + slope)
        enters = int(gradient.argmin())
        if gradient[enters] >= -tolerance:
            return solution
        free[enters] = True
        while True:
            trial = np.zeros_like(solution)
            trial[free] = np.linalg.solve(gram[np.ix_(free, free)], -slope[free])
            leaving = free & (trial <= 0)
            if not leaving.any():
                break
            reach = (solution[leaving] / (solution[leaving] - trial[leaving])).min()
            solution = solution + reach * (trial - solution)
            free &= solution > tolerance
        solution = trial


def _cosines(gramian: Floats) -> tuple[Floats, Floats]:
    """Return the cosines of the gradients [k, k], with a ridge on the diagonal, their norms [k] (1 instead of 0)."""
    norms = np.sqrt(np.diag(gramian))
    norms = np.where(norms > 0, norms, 1.0)
    return gramian / np.outer(norms, norms) + RIDGE * np.eye(len(gramian)), norms
