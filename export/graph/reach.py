"""The sliding window of each layer, read from transformers' mask functions in one short pass before tracing.

An operator with a built-in causal mask is correct only if the model's mask is causal too, with or without a sliding
window. Only the mask is evaluated, not the model's config: eager attention and SDPA, the reference, use only the mask.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prosocial.core.errors import InputError

from .rotary import Heads, RotaryTables, Tables

FAR = 1 << 20  # larger than any sliding window
EVERYTHING = -1
MaskFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Reach:
    """Placeholder for a causal mask.

    Attributes:
        window: number of tokens that a query sees, its own included; -1 for all before it.
    """

    window: int


class Rehearsal:
    """Records the attention calls of one pass instead of computing attention.

    Args:
        rotary: tables whose placeholders the pass uses; None for a normal pass.

    Attributes:
        windows: sliding window by layer index, -1 for none.
        heads: query and key by layer index.
        tables: tables that the heads should be rotated by, by layer index; None without `rotary`.
    """

    def __init__(self, rotary: RotaryTables | None = None) -> None:
        self._rotary = rotary
        self.tables: dict[int, Tables | None] = {}
        self.windows: dict[int, int] = {}
        self.heads: dict[int, Heads] = {}

    def mask(self, mask_function: MaskFunction) -> Reach:
        """Return the placeholder for the mask of a group of layers."""
        return Reach(window_of(mask_function))

    def attend(self, layer_index: int, heads: Sequence[Tensor], mask: Any, **_: float) -> Tensor:
        """Record a layer's window and heads; return zeros [B, S, h, d] for the query [B, h, S, d] in `heads`.

        Raises:
            InputError: the mask does not come from transformers' masking functions, or the layer calls attention twice.
        """
        if layer_index in self.windows:
            raise InputError(f"each layer should call attention once, layer {layer_index} calls attention twice")
        if not isinstance(mask, Reach):
            raise InputError(f"its masks should come from transformers' masking functions, found {type(mask).__name__}")
        self.windows[layer_index] = mask.window
        self.heads[layer_index] = (heads[0], heads[1])
        self.tables[layer_index] = self._rotary.take() if self._rotary is not None else None
        return torch.zeros_like(heads[0]).transpose(1, 2)


def window_of(mask_function: MaskFunction) -> int:
    """Return the sliding window of a causal mask function, -1 if it has none.

    Raises:
        InputError: the mask is not causal, or has another form than a full mask or a window (chunks, blocks).

    Examples:
        >>> window_of(lambda batch, head, query, key: (key <= query) & (key > query - 4))
        4
    """
    n_seen = int(_seen(mask_function, FAR).sum())
    window = n_seen if n_seen <= FAR else EVERYTHING
    for query in (0, 1, 2, 7, max(window, 1) - 1, max(window, 1), 2 * max(window, 1) + 3, FAR):
        keys = torch.arange(query + 9)
        expected = (keys <= query) & ((keys > query - window) | (window == EVERYTHING))
        if not torch.equal(_seen(mask_function, query), expected):
            raise InputError("its masks should be causal, full or with a sliding window, found another form")
    return window


def _seen(mask_function: MaskFunction, query: int) -> Tensor:
    """Return which of the keys 0 to query + 8 the query sees, [query + 9]."""
    first = torch.zeros(1, dtype=torch.int64)
    keys = torch.arange(query + 9)
    try:
        return mask_function(first, first, torch.tensor([query]), keys).expand(keys.shape)
    except (IndexError, RuntimeError, TypeError) as error:
        raise InputError("its masks should depend only on positions, found one that reads the input") from error
