"""Subtract only what an anti-expert does not share with an expert (Ext-Sub, arXiv 2308.08090).

By rows: c = unit(unit(w_expert) + unit(w_harm));  tau' = w_harm - <w_harm, c> c

Rows run along the last dimension; a 1-D tensor is one row. c is the direction that both rows have in common.
"""

from __future__ import annotations

from .companion import Companion, Given
from .in_torch import in_torch, torch
from .method import Deltas, Prepared, method

NOISE = 2.0**-22  # relative length of a row below which it is rounding noise of fp32


def remove_common(delta: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
    """Return the delta with the component along the common direction removed from each row.

    The common direction is the bisector of the two rows. If the expert does not change a row, or changes it in the
    opposite direction, there is no common direction and the row stays as it is.

    Args:
        delta: harmful delta, fp32.
        expert: expert's delta, fp32, of the same shape.
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
    """Open the expert's vector; tensors that it does not hold stay as they are.

    Args:
        deltas: only their names are read.
        expert: path of a vector folder (benign model minus base), or tensors by name.

    Raises:
        ArtefactError: the folder is not a valid vector.
        InputError: the vectors have no tensor in common, or a shape differs.
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
