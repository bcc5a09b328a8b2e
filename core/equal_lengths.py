"""Rows of equal length go together, so that no padding is ever needed (torch-free)."""

from collections import defaultdict
from collections.abc import Callable, Iterable


def equal_length_batches(lengths: Iterable[int], most_rows: Callable[[int], int]) -> list[list[int]]:
    """Return the indices of rows in batches of one length each, the short ones first, otherwise in their order.

    Args:
        lengths: of the rows. most_rows: returns the size of a batch, given the length of its rows.

    Example:
        >>> equal_length_batches([2, 1, 2, 2], lambda length: 2)
        [[1], [0, 2], [3]]
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, length in enumerate(lengths):
        by_length[length].append(index)
    batches: list[list[int]] = []
    for length, group in sorted(by_length.items()):
        size = most_rows(length)
        batches += [group[at : at + size] for at in range(0, len(group), size)]
    return batches
