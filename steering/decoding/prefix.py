"""What prompts have in common: within a batch, and with the prompt read before (torch-free)."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

# What a pass more costs, in tokens read in a batch (49 M parameters, one thread: 15 do not pay, 28 do).
TOKENS_PER_RUN = 24


def shared_prefix(ids: NDArray[np.int64]) -> int:
    """Return how many tokens of prompts [B, S] to read once for all rows; 0 where that would not pay.

    At least one token is left for each row, as it is the last one that is decided on. One token of each row is read in
    one pass; more of them take a pass per row.

    Example:
        >>> shared_prefix(np.array([[*range(50), 1, 2], [*range(50), 3, 4]])), shared_prefix(np.array([[5, 1], [5, 2]]))
        (50, 0)
    """
    n_rows, n_tokens = ids.shape
    differs = (ids != ids[:1]).any(0)
    n_shared = min(int(differs.argmax()) if differs.any() else n_tokens, n_tokens - 1)
    n_runs = 1 if n_shared == n_tokens - 1 else n_rows
    return n_shared if (n_rows - 1) * n_shared >= n_runs * TOKENS_PER_RUN else 0


@dataclass
class PrefixCache:
    """The keys and values of the prompt read last, so that the next one is read from where the two part.

    Attributes:
        ids: [S] the tokens. cache: of one row, a value of at least S tokens per layer and part.
    """

    ids: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    cache: list[Any] = field(default_factory=list)

    def known(self, ids: NDArray[np.int64]) -> int:
        """Return how many tokens that all prompts [B, S] begin with are known; at least one is left to be read.

        Example:
            >>> PrefixCache(np.arange(50), []).known(np.array([[*range(40), 7, 8]]))
            40
        """
        n_tokens = min(len(self.ids), ids.shape[1] - 1)
        differs = (ids[:, :n_tokens] != self.ids[:n_tokens]).any(0)
        n_known = int(differs.argmax()) if differs.any() else n_tokens
        return n_known if n_known >= TOKENS_PER_RUN else 0
