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
def joined() -> Iterator[None]:
    """Join the process group that `torchrun`'s environment variables describe; without them do nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if own_device().type == "cuda":
        torch.cuda.set_device(own_device())
    distributed.init_process_group()  # gloo for CPU tensors, the default backend for the device's
    try:
        yield
        distributed.barrier()  # wait until the first process has written its files
    finally:
        distributed.destroy_process_group()


def own_device() -> torch.device:
    """Return the device of this process: its GPU if there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


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


def is_first() -> bool:
    """Return whether this is the process that writes files (rank 0)."""
    return not _several() or distributed.get_rank() == 0


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
