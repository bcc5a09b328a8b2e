"""When attributes pull apart: how the gradients g_i of k losses become one step, sum_i v_i g_i.

Every method is resolved on the gradients of the unweighted losses; the preference p then weighs what came out:

    none      v = p
    pcgrad    each g_i is projected off those it conflicts with, and p_i weighs the projection
    upgrad    each p_i g_i is projected onto the dual cone of all gradients (torchjd's pref_vector is p)
    cagrad, mgda, nash_mtl, famo
              v is p * a, scaled to the sum of p, where a are the method's own weights

An attribute with p_i = 0 takes no part. So at p = e_i the step is g_i, whatever the method, and at equal preferences it
is the method's own direction.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prosocial.core.errors import MissingExtraError, UnknownNameError

Floats = NDArray[np.float64]
RIDGE = 1e-6  # added to the cosines' diagonal, so that opposed gradients have one solution
CAGRAD_RADIUS = 0.5  # c of the paper
MAX_NEWTON_STEPS = 100


def combination(gramian: Tensor, preference: Tensor, *, method: str, seed: int = 0) -> Tensor:
    """Return [k] v, the weights of the gradients in the step.

    Args:
        gramian: [k, k] inner products of the gradients of the unweighted losses.
        preference: [k] weights of the losses, at least 0.
        method: one of GRAMIAN_METHODS.
        seed: of the order in which pcgrad projects.

    Raises:
        UnknownNameError: the method is not known.
        MissingExtraError: the method needs a package that is not installed (names the extra).
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
    """Return [k] preference * own, scaled to the sum of the preference; zeros where they share no attribute."""
    product = preference * own.clamp(min=0)
    total = product.sum()
    return product * (preference.sum() / total) if total > 0 else torch.zeros_like(preference)


def conflicting_share(gramian: Tensor) -> float:
    """Return the share of pairs of gradients whose inner product is negative, from their Gramian [k, k]."""
    upper = torch.triu_indices(len(gramian), len(gramian), offset=1)
    return float((gramian[upper[0], upper[1]] < 0).float().mean()) if upper.shape[1] else 0.0


def _none(gramian: Tensor, preference: Tensor, seed: int) -> Tensor:
    """PARM's (arXiv 2505.06274): the weighted sum."""
    return preference


def _pcgrad(gramian: Tensor, preference: Tensor, seed: int) -> Tensor:
    """Yu et al., arXiv 2001.06782; a projection scales with its own row alone, so p is put on the rows."""
    from torchjd.aggregation import PCGradWeighting

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights: Tensor = PCGradWeighting()(preference[:, None] * gramian * preference)
    return preference * weights


def _upgrad(gramian: Tensor, preference: Tensor, seed: int) -> Tensor:
    """Quinton and Rey, arXiv 2406.16232: no step of it conflicts with any gradient."""
    from torchjd.aggregation import UPGradWeighting

    projector: Any = project_on_dual_cone  # torchjd asks no more of one than to be called
    weights: Tensor = UPGradWeighting(pref_vector=preference, projector=projector)(gramian)
    return weights


def _cagrad(gramian: Tensor, preference: Tensor, seed: int) -> Tensor:
    """Liu et al., arXiv 2110.14048: the best worst case within a ball around the mean gradient."""
    try:
        from torchjd.aggregation import CAGradWeighting

        weighting = CAGradWeighting(c=CAGRAD_RADIUS)
    except ImportError:
        raise MissingExtraError("cvxpy", "cagrad") from None
    scale = gramian.diagonal().mean()  # its solver gives up where the trace is below 1e-4
    return weighted_after(weighting(gramian / scale) if scale > 0 else preference, preference)


def _mgda(gramian: Tensor, preference: Tensor, seed: int) -> Tensor:
    """Desideri 2012: the point of least norm in the convex hull of the gradients."""
    from torchjd.aggregation import MGDAWeighting

    return weighted_after(MGDAWeighting()(gramian), preference)


def _nash_mtl(gramian: Tensor, preference: Tensor, seed: int) -> Tensor:
    """Navon et al., arXiv 2202.01017: the bargaining solution, G a = 1 / a."""
    return weighted_after(torch.from_numpy(bargaining_solution(gramian.numpy())), preference)


# What needs the inner products of the gradients; FAMO needs the losses alone (`famo.py`).
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
    """Return the a > 0 with G a = 1 / a, elementwise, by Newton's method.

    It is where the strictly convex `a G a / 2 - sum log a` is least. (torchjd's solver needs the GPL's ecos and
    falls back to equal weights where its linearisation fails.)
    """
    gram, norms = _cosines(gramian)
    found = np.ones(len(gram))
    for _ in range(MAX_NEWTON_STEPS):
        slope = gram @ found - 1 / found
        step = np.linalg.solve(gram + np.diag(1 / found**2), slope)
        decrement = np.sqrt(max(0.0, float(slope @ step)))
        if decrement < 1e-10:
            break
        found = found - step / (1 + decrement)  # damped: stays positive, since the function is self-concordant
    return found / norms


def project_on_dual_cone(wanted: Tensor, gramian: Tensor) -> Tensor:
    """Return, for each row u of `wanted` [.., k], the v >= u with the least v G v.

    `v @ J` is the projection of `u @ J` onto the vectors that conflict with no row of J (G = J J^T). It takes the place
    of torchjd's own projector, which needs the GPL's quadprog.
    """
    gram, norms = _cosines(gramian.double().cpu().numpy())
    rows = wanted.double().cpu().numpy().reshape(-1, len(gram))
    found = np.stack([row + _least_addition(gram, gram @ (norms * row)) / norms for row in rows])
    return torch.from_numpy(found).reshape(wanted.shape).to(wanted)


def _least_addition(gram: Floats, slope: Floats) -> Floats:
    """Return the s >= 0 where `s G s / 2 + slope s` is least (non-negative least squares, Lawson and Hanson 1974)."""
    found, free = np.zeros_like(slope), np.zeros(len(slope), dtype=bool)
    tolerance = 1e-12 * (np.abs(slope).max() + np.finfo(float).tiny)
    while True:
        gradient = np.where(free, 0.0, gram @ found + slope)
        enters = int(gradient.argmin())
        if gradient[enters] >= -tolerance:
            return found
        free[enters] = True
        while True:
            trial = np.zeros_like(found)
            trial[free] = np.linalg.solve(gram[np.ix_(free, free)], -slope[free])
            leaving = free & (trial <= 0)
            if not leaving.any():
                break
            reach = (found[leaving] / (found[leaving] - trial[leaving])).min()
            found = found + reach * (trial - found)
            free &= found > tolerance
        found = trial


def _cosines(gramian: Floats) -> tuple[Floats, Floats]:
    """Return the Gramian of the gradients at length 1, with a ridge, and their norms (1 for one that vanishes)."""
    norms = np.sqrt(np.diag(gramian))
    norms = np.where(norms > 0, norms, 1.0)
    return gramian / np.outer(norms, norms) + RIDGE * np.eye(len(gramian)), norms
