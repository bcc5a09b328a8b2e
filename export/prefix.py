"""How much of a batch of prompts is the same, and whether to read it once (torch-free)."""

import numpy as np
from numpy.typing import NDArray

TOKENS_PER_RUN = 16  # a pass of its own over a row's rest costs about as much as reading so many tokens in a batch


def shared_prefix(ids: NDArray[np.int64]) -> int:
    """Return how many tokens of prompts [B, S] to read once for all rows; 0 where that would not pay.

    At least one token is left for each row, as it is the last one that is decided on.

    Example:
        >>> shared_prefix(np.array([[*range(40), 1], [*range(40), 2]])), shared_prefix(np.array([[5, 6, 1], [5, 6, 2]]))
        (40, 0)
    """
    n_rows, n_tokens = ids.shape
    differs = (ids != ids[:1]).any(0)
    n_shared = min(int(differs.argmax()) if differs.any() else n_tokens, n_tokens - 1)
    return n_shared if (n_rows - 1) * n_shared >= n_rows * TOKENS_PER_RUN else 0
