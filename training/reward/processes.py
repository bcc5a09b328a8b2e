"""Data-parallel training: several processes, such as from `accelerate launch`, share the rows of a batch."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, distributed

from prosocial.core.errors import InputError

T = TypeVar("T")


@contextlib.contextmanager
def joined(device: str = "cpu") -> Iterator[str]:
    """Join the process group that `torchrun`'s environment variables describe, and yield the device of this process.

    Args:
        device: the device where there is one process; several take one GPU each for `cuda`.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    if device.startswith("cuda"):
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    distributed.init_process_group()  # gloo for CPU tensors, the default backend for the device's
    try:
        yield device
        distributed.barrier()  # wait until the first process has written its files
    finally:
        distributed.destroy_process_group()


def own_rows(rows: Sequence[T]) -> Sequence[T]:
    """Return the rows that this process handles; all rows if there is only one process.

    Raises:
        InputError: there are fewer rows than processes.
    """
    if not _several():
        return rows
    rank, n = distributed.get_rank(), distributed.get_world_size()
    if len(rows) < n:
        raise InputError(
            f"a batch should have at least one pair for each of the {n} processes, found {len(rows)}: raise batch_size"
        )
    return rows[rank::n]


@torch.no_grad()
def add_up(tensors: Iterable[Tensor]) -> None:
    """Sum each tensor over all processes, in place; the results are bit-identical on all of them."""
    if _several():
        for tensor in tensors:
            distributed.all_reduce(tensor)


def everybody_read() -> None:
    """Wait until every process is here, such as before the first one changes a file that all of them read."""
    if _several():
        distributed.barrier()


def is_first() -> bool:
    """Return whether this is the process that writes files (rank 0)."""
    return not _several() or distributed.get_rank() == 0


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
