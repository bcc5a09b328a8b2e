"""Truncate each matrix to rank r by randomised SVD (Halko, Martinsson and Tropp 2011, arXiv 0909.4061, algorithm 4.4).

The weight difference of a fine-tune is close to low rank, and directions with small singular values are mostly noise.
The result is stored as two factors if they are smaller than the matrix. Several runs are averaged first.
"""

from __future__ import annotations

from typing import Annotated

from prosocial.core.noise import entropy

from ..vector import LowRank
from .in_torch import torch
from .method import Array, Deltas, Prepared, method
from .numbers import Number, Seed

OVERSAMPLING = 8


def truncate(
    matrix: torch.Tensor, rank: int, *, n_iterations: int = 4, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return up [m, r] and down [r, n] in fp32, whose product is close to the best rank-r approximation.

    Args:
        matrix: [m, n] fp32.
        rank: r, at most min(m, n).
        n_iterations: number of power iterations; more give a better approximation.
        seed: seed of the random test matrix.
    """
    generator = torch.Generator().manual_seed(seed)
    n_columns = min(rank + OVERSAMPLING, *matrix.shape)
    basis = torch.linalg.qr(matrix @ torch.randn(matrix.shape[1], n_columns, generator=generator))[0]  # [m, k]
    for _ in range(n_iterations):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis)[0])[0]
    left, values, right = torch.linalg.svd(basis.T @ matrix, full_matrices=False)  # [k, k], [k], [k, n]
    return basis @ (left[:, :rank] * values[:rank]), right[:rank].contiguous()


@method()
def prepare(deltas: Deltas, *, rank: Annotated[int, Number(1, search=(1, 32), log=True)], seed: Seed = 0) -> Prepared:
    """Prepare the method; the deltas are not read.

    Only matrices are truncated, and only if the two factors are smaller than the matrix; other tensors do not change.

    Args:
        deltas: not read.
        rank: rank of the truncated matrices.
        seed: seed of the random test matrices.
    """

    def factorise(name: str, delta: Array) -> LowRank | None:
        if delta.ndim != 2 or rank * sum(delta.shape) >= delta.size:
            return None
        up, down = truncate(torch.from_numpy(delta), rank, seed=entropy(seed, name) % 2**63)
        return LowRank(down, up, 1.0, transposed=False)

    def transform(name: str, delta: Array) -> Array:
        factors = factorise(name, delta)
        return delta if factors is None else factors.product().numpy()

    return Prepared(transform, {"rank": rank, "seed": seed}, factorise=factorise)
