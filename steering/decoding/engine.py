"""What the decoding loop asks of a model, whether torch or ONNX Runtime runs it (torch-free)."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .config import DecodingConfig
from .controls import ControlArrays


@dataclass(frozen=True)
class Decision:
    """What an engine says of the next token of B rows.

    Attributes:
        logits: [B, V] float32. risk: [B, C] that the next token harms (C is 0 without a gate). safe_set_size: [B].
    """

    logits: NDArray[np.float32]
    risk: NDArray[np.float32]
    safe_set_size: NDArray[np.int64]


class Stream(Protocol):
    """A batch of rows under way, with its key/value cache."""

    decision: Decision

    def step(self, tokens: NDArray[np.int64]) -> None:
        """Append one token [B] per row and decide again."""
        ...

    def keep(self, rows: NDArray[np.intp]) -> None:
        """Go on with some rows only, in that order."""
        ...


class Engine(Protocol):
    """A model that decides on next tokens.

    Attributes:
        context_length: most tokens in a row, None if there is no limit. vocabulary_size: tokens are ids below it.
        config: the decoding config; None for a model without the rule.
    """

    context_length: int | None
    vocabulary_size: int
    config: DecodingConfig | None

    def prefill(self, ids: NDArray[np.int64], controls: ControlArrays | None, *, capacity: int) -> Stream:
        """Read B prompts of equal length [B, S]; no row will grow beyond `capacity` tokens."""
        ...
