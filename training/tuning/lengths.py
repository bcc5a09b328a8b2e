"""Batches of nearly equal length, in an order that depends on the seed and the epoch alone."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

BATCHES_TOGETHER = 50  # batches whose rows are sorted together, as in transformers


class LengthGroups(Sampler[int]):
    """Draws every row once an epoch so that the rows of a batch have nearly equal lengths, batches in random order.

    Args:
        lengths: tokens of each row.
        batch_size: rows of a batch, over all processes.
        seed: seed of the order.

    Examples:
        >>> order = list(LengthGroups([9, 1, 8, 2], batch_size=2, seed=0))
        >>> sorted(map(sorted, (order[:2], order[2:])))
        [[0, 2], [1, 3]]
    """

    def __init__(self, lengths: Sequence[int], *, batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; accelerate calls it, also where a training resumes."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        rows = torch.randperm(len(self.lengths), generator=generator).tolist()
        size = self.batch_size * BATCHES_TOGETHER
        groups = [sorted(rows[at : at + size], key=self.lengths.__getitem__) for at in range(0, len(rows), size)]
        batches = [group[at : at + self.batch_size] for group in groups for at in range(0, len(group), self.batch_size)]
        whole = [batch for batch in batches if len(batch) == self.batch_size]
        order = [whole[at] for at in torch.randperm(len(whole), generator=generator).tolist()]
        for batch in order + [batch for batch in batches if len(batch) < self.batch_size]:
            yield from batch
