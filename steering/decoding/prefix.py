"""Common prefixes of prompts: within a batch, and with the previous prompt (torch-free)."""

from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Cost of one extra forward pass in tokens of a batched prefill (49 M parameters, one thread: break-even at 15 to 28).
TOKENS_PER_RUN = 24


def shared_prefix(ids: NDArray[np.int64]) -> int:
    """Return how many leading tokens of prompts [B, S] to prefill once for all rows; 0 if that would not be faster.

    At least one token per row is left, because the next-token logits come from the last one. If exactly one is left,
    all rows finish in one pass; otherwise each row needs its own pass.

    Examples:
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
    """The key/value cache of the previous prompt, so that the next prefill skips their common prefix.

    Attributes:
        ids: [S], tokens of the previous prompt.
        cache: one row's keys and values, one entry per layer and part, each with at least S positions.
    """

    ids: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    cache: list[Any] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    def take(self, ids: NDArray[np.int64]) -> tuple[int, list[Any]]:
        """Return `known` of prompts and the cache that it is about, also while other threads keep theirs."""
        with self._lock:
            return self.known(ids), self.cache

    def keep(self, ids: NDArray[np.int64], cache: list[Any]) -> None:
        """Keep the cache of a prompt [S] in place of the previous one."""
        with self._lock:
            self.ids, self.cache = ids, cache

    def known(self, ids: NDArray[np.int64]) -> int:
        """Return how many leading tokens of all prompts [B, S] are in the cache; at least one token is left to run.

        Examples:
            >>> PrefixCache(np.arange(50), []).known(np.array([[*range(40), 7, 8]]))
            40
        """
        n_tokens = min(len(self.ids), ids.shape[1] - 1)
        differs = (ids[:, :n_tokens] != self.ids[:n_tokens]).any(0)
        n_known = int(differs.argmax()) if differs.any() else n_tokens
        return n_known if n_known >= TOKENS_PER_RUN else 0
