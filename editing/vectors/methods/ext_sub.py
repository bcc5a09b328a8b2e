"""Subtract only what an anti-expert does not share with an expert (Ext-Sub, arXiv 2308.08090).

By rows: c = unit(unit(w_expert) + unit(w_harm));  tau' = w_harm - <w_harm, c> c

A row is the last dimension; a vector is one row. c is the direction that both have in common.
"""

from __future__ import annotations

from .companion import Companion, Given
from .in_torch import in_torch, torch
from .method import Deltas, Prepared, method

NOISE = 2.0**-22  # of a row's length: what rounding to fp32 leaves of parallel rows


def remove_common(delta: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
    """Return each row without its component along the bisector of the two rows; fp32 of one shape.

    A row that the expert does not change, or changes the opposite way, has no common direction and stays.
    """
    rows, other = _rows(delta), _rows(expert)
    shared = _unit(rows) + _unit(other)
    has_common = (other.norm(dim=1, keepdim=True) > 0) & (shared.norm(dim=1, keepdim=True) > NOISE)
    common = torch.where(has_common, _unit(shared), 0.0)
    left = rows - (rows * common).sum(1, keepdim=True) * common
    noise = left.norm(dim=1, keepdim=True) <= NOISE * rows.norm(dim=1, keepdim=True)
    return torch.where(noise, 0.0, left).float().reshape(delta.shape)


@method()
def prepare(deltas: Deltas, *, expert: Given) -> Prepared:
    """Open the expert's vector: a vector folder (benign minus base), or tensors by name.

    Tensors that the expert's vector does not hold stay as they are.

    Raises:
        InputError: no tensor is in both vectors, or a shape differs.
    """
    companion = Companion(expert, deltas.names, "expert")

    def transform(name: str, delta: torch.Tensor) -> torch.Tensor:
        its_delta = companion.delta(name, tuple(delta.shape))
        return delta if its_delta is None else remove_common(delta, its_delta)

    return Prepared(in_torch(transform), {"expert_blake3": companion.blake3})


def _rows(delta: torch.Tensor) -> torch.Tensor:
    return (delta.reshape(-1, delta.shape[-1]) if delta.dim() > 1 else delta.reshape(1, -1)).double()


def _unit(rows: torch.Tensor) -> torch.Tensor:
    length = rows.norm(dim=1, keepdim=True)
    return torch.where(length > 0, rows / length, 0.0)
