"""Rows of equal length go together, so that no padding is ever needed (torch-free)."""

from collections import defaultdict
from collections.abc import Callable, Sequence

MOST_ROWS = 128
MOST_BYTES = 256 << 20  # of recorded logits, per side
LOGIT_BYTES = 4


def equal_length_batches(prompts: Sequence[Sequence[int]], most_rows: Callable[[int], int]) -> list[list[int]]:
    """Return the indices of the prompts in batches of one length each, the short ones first.

    Args:
        prompts: tokens. most_rows: the size of a batch, given the length of its prompts.

    Example:
        >>> equal_length_batches([[5, 6], [7], [8, 9], [1, 2]], lambda length: 2)
        [[1], [0, 2], [3]]
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        by_length[len(prompt)].append(index)
    batches: list[list[int]] = []
    for length, group in sorted(by_length.items()):
        size = most_rows(length)
        batches += [group[at : at + size] for at in range(0, len(group), size)]
    return batches


def rows_in_memory(n_positions: int, vocabulary_size: int) -> int:
    """Return how many rows may be recorded at once: at most 128, fewer where their logits would exceed 256 MB.

    Example:
        >>> rows_in_memory(64, 640), rows_in_memory(64, 128_256), rows_in_memory(10**6, 128_256)
        (128, 8, 1)
    """
    return max(1, min(MOST_ROWS, MOST_BYTES // (n_positions * vocabulary_size * LOGIT_BYTES)))
