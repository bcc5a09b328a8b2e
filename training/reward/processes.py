"""Several processes on one batch, such as those that `accelerate launch` starts: each takes some of its rows."""

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
    """Be one of the processes that a launcher started (`torchrun`'s variables), if any, for the duration of a block."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if own_device().type == "cuda":
        torch.cuda.set_device(own_device())
    distributed.init_process_group()  # gloo for what lies on the CPU, the device's own way for the rest
    try:
        yield
        distributed.barrier()  # none leaves before what the first writes is there
    finally:
        distributed.destroy_process_group()


def own_device() -> torch.device:
    """Return the device of this process: its GPU where there is one."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


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
