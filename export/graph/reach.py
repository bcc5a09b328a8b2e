"""How far back each layer looks, asked of transformers' own mask functions in one short pass before tracing.

An operator with its own causal mask is right only where the model's mask is causal too, with or without a sliding
window. What a model says beside its mask does not count: eager attention and SDPA, the reference, read the mask alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prosocial.core.errors import InputError

from .rotary import Heads, RotaryTables, Tables

FAR = 1 << 20  # a position beyond any sliding window
EVERYTHING = -1
MaskFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Reach:
    """Stands in for a mask: the last `window` tokens, the query's own included; -1: all before it."""

    window: int


class Rehearsal:
    """Takes the attention calls of one pass and keeps what each layer may look at; attends to nothing.

    Attributes:
        windows: of each layer that attended, by its index. heads: what it was handed.
        tables: by what `rotary`, if given, would have its heads turned.
    """

    def __init__(self, rotary: RotaryTables | None = None) -> None:
        self._rotary = rotary
        self.tables: dict[int, Tables | None] = {}
        self.windows: dict[int, int] = {}
        self.heads: dict[int, Heads] = {}

    def mask(self, mask_function: MaskFunction) -> Reach:
        """Return what stands in for the mask of a group of layers."""
        return Reach(window_of(mask_function))

    def attend(self, layer_index: int, heads: Sequence[Tensor], mask: Any, **_: float) -> Tensor:
        """Note the window of a layer; zeros for its query [B, h, S, d] of `heads`, as [B, S, h, d].

        Raises:
            InputError: the mask does not come from transformers' masking functions.
        """
        if not isinstance(mask, Reach):
            raise InputError(f"its masks should come from transformers' masking functions, found {type(mask).__name__}")
        self.windows[layer_index] = mask.window
        self.heads[layer_index] = (heads[0], heads[1])
        self.tables[layer_index] = self._rotary.take() if self._rotary is not None else None
        return torch.zeros_like(heads[0]).transpose(1, 2)


def window_of(mask_function: MaskFunction) -> int:
    """Return the sliding window of a causal mask, -1 if it has none.

    Raises:
        InputError: the mask is not causal, or neither whole nor a window (chunks, blocks, documents).
    """
    n_seen = int(_seen(mask_function, FAR).sum())
    window = n_seen if n_seen <= FAR else EVERYTHING
    for query in (0, 1, 2, 7, max(window, 1) - 1, max(window, 1), 2 * max(window, 1) + 3, FAR):
        keys = torch.arange(query + 9)
        expected = (keys <= query) & ((keys > query - window) | (window == EVERYTHING))
        if not torch.equal(_seen(mask_function, query), expected):
            raise InputError("its masks should be causal, whole or with a sliding window, found another form")
    return window


def _seen(mask_function: MaskFunction, query: int) -> Tensor:
    """Which of the keys from 0 to a few beyond `query` it sees, [query + 9]."""
    first = torch.zeros(1, dtype=torch.int64)
    keys = torch.arange(query + 9)
    try:
        return mask_function(first, first, torch.tensor([query]), keys).expand(keys.shape)
    except (IndexError, RuntimeError, TypeError) as error:
        raise InputError("its masks should depend on positions alone, found one that reads the input") from error
