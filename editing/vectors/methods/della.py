"""Drop small elements of each row more often than large ones, and rescale (DELLA, arXiv 2406.11617, MagPrune).

p = 1 - density;  p_i = p - window / 2 + window * r_i / n, where r_i is the rank of abs(tau_i) in its row (0: largest)
m_i ~ Bernoulli(1 - p_i);  tau'_i = m_i * tau_i / (1 - p_i)

Rows run along the last dimension; a 1-D tensor is one row. Several runs are averaged first.
"""

from __future__ import annotations

from typing import Annotated

from prosocial.core.errors import InputError
from prosocial.core.noise import uniform_noise

from .dare import drop_and_rescale
from .in_torch import in_torch, torch
from .method import Deltas, Prepared, method
from .numbers import Number, Seed

BLOCK_ELEMENTS = 1 << 20


def keep_probabilities(rows: torch.Tensor, density: float, window: float) -> torch.Tensor:
    """Return the probability to keep each element, [m, n] fp32; larger magnitudes have higher probabilities.

    Equal magnitudes are ranked by position.

    Args:
        rows: [m, n] fp32.
        density: mean probability of a row.
        window: difference between the highest and the lowest probability of a row.
    """
    n = rows.shape[1]
    order = rows.abs().argsort(dim=1, descending=True, stable=True)
    by_rank = density + window / 2 - window * torch.arange(n, dtype=torch.float64) / n
    return torch.empty_like(rows).scatter_(1, order, by_rank.float().expand_as(rows))


@method(elementwise=True)
def prepare(
    deltas: Deltas,
    *,
    density: Annotated[float, Number(0, 1, above=True, search=(0.15, 0.9))],
    window: Annotated[float, Number(0)] = 0.1,
    seed: Seed = 0,
) -> Prepared:
    """Prepare the method; the deltas are not read.

    Args:
        deltas: not read.
        density: mean probability to keep an element.
        window: difference between the highest and the lowest probability of a row (the paper's epsilon).
        seed: seed of the noise.

    Raises:
        InputError: density - window / 2 or density + window / 2 is outside (0, 1].
    """
    if density - window / 2 <= 0 or density + window / 2 > 1:
        raise InputError(
            f"density -+ window / 2 should be in (0, 1], found {density} -+ {window / 2}: use a smaller window"
        )

    def transform(name: str, delta: torch.Tensor) -> torch.Tensor:
        rows = delta.reshape(-1, delta.shape[-1]) if delta.dim() > 1 else delta.reshape(1, -1)
        noise = torch.from_numpy(uniform_noise(seed, name, delta.numel())).reshape(rows.shape)
        shaped = torch.empty_like(rows)
        n_rows = max(1, BLOCK_ELEMENTS // max(1, rows.shape[1]))
        for start in range(0, len(rows), n_rows):
            block = slice(start, start + n_rows)
            keep = keep_probabilities(rows[block], density, window)
            shaped[block] = drop_and_rescale(rows[block], keep, noise[block])
        return shaped.reshape(delta.shape)

    return Prepared(in_torch(transform), {"density": density, "window": window, "seed": seed})
