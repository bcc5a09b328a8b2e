"""Several processes on one batch, such as those that `accelerate launch` starts: each takes some of its rows."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, distributed

from ..errors import InputError

T = TypeVar("T")


def own_rows(rows: Sequence[T]) -> Sequence[T]:
    """Return the rows that are this process's; all of them where there is one process.

    Raises:
        InputError: there are fewer rows than processes.
    """
    if not _several():
        return rows
    rank, n = distributed.get_rank(), distributed.get_world_size()
    if len(rows) < n:
        raise InputError(f"a batch should have a pair for each of {n} processes, found {len(rows)}: raise batch_size")
    return rows[rank::n]


@torch.no_grad()
def add_up(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over the processes, in place; they then hold the same, bit for bit."""
    if _several():
        for tensor in tensors:
            distributed.all_reduce(tensor)


def is_first() -> bool:
    """Return whether this process writes what all of them have."""
    return not _several() or distributed.get_rank() == 0


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
