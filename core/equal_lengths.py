"""Batches of rows of equal length, which need no padding (torch-free)."""

from collections import defaultdict
from collections.abc import Callable, Iterable


def equal_length_batches(lengths: Iterable[int], most_rows: Callable[[int], int]) -> list[list[int]]:
    """Return batches of row indices in which all rows have one length; short rows come first, ties keep their order.

    Args:
        lengths: length of each row.
        most_rows: function from the length of the rows to the largest number of rows in a batch.

    Examples:
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
