"""The interface between the decoding loop and a model in torch or ONNX Runtime (torch-free)."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .config import DecodingConfig
from .controls import ControlArrays

PAD = -1  # in the place of a token before the start of a shorter row


@dataclass(frozen=True)
class Decision:
    """An engine's outputs for the next token of B rows.

    Attributes:
        logits: [B, V] float32, minus infinity outside the safe set.
        risk: [B, C] float32, expected risk of the next token by harm category; C is 0 without a gate.
        safe_set_size: [B] int64, number of safe tokens.
    """

    logits: NDArray[np.float32]
    risk: NDArray[np.float32]
    safe_set_size: NDArray[np.int64]


class Stream(Protocol):
    """A batch of sequences with their key/value cache.

    Attributes:
        decision: the outputs for the next token of each row.
    """

    decision: Decision

    def step(self, tokens: NDArray[np.int64]) -> None:
        """Run one decoding step: append one token [B] per row and update `decision`."""
        ...

    def keep(self, rows: NDArray[np.intp]) -> None:
        """Keep only these rows, in this order."""
        ...


class Engine(Protocol):
    """A model that the decoding loop can run.

    Attributes:
        context_length: maximum number of tokens in a sequence; None if there is no limit.
        vocabulary_size: number of token ids.
        config: the decoding config; None for a model without the rule.
    """

    context_length: int | None
    vocabulary_size: int
    config: DecodingConfig | None

    def prefill(self, ids: NDArray[np.int64], controls: ControlArrays | None, *, capacity: int) -> Stream:
        """Run B prompts of equal length [B, S].

        Args:
            ids: [B, S], token ids; shorter rows start with `PAD`, which only engines in torch take.
            controls: controls of the B rows; None for the defaults.
            capacity: maximum number of tokens that a row will ever have, for allocating the key/value cache.
        """
        ...
