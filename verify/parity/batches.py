"""The number of rows whose decisions are recorded at once (torch-free)."""

MOST_ROWS = 128
MOST_BYTES = 256 << 20  # of recorded logits, per side
LOGIT_BYTES = 4


def rows_in_memory(n_positions: int, vocabulary_size: int) -> int:
    """Return how many rows may be recorded at once: at most 128, or fewer so that their logits stay within 256 MiB.

    Examples:
        >>> rows_in_memory(64, 640), rows_in_memory(64, 128_256), rows_in_memory(10**6, 128_256)
        (128, 8, 1)
    """
    return max(1, min(MOST_ROWS, MOST_BYTES // (n_positions * vocabulary_size * LOGIT_BYTES)))
