"""Rotary embeddings applied by the attention operator: their tables, and a check that they equal the model's.

To find the rotation without knowing the architecture's code, the model's rotary modules return placeholders instead of
cosines and sines. In `q * cos + rotate_half(q) * sin` the placeholders leave q unchanged, and record which table q
should have been rotated by. Comparing such a pass with a normal one shows whether the operator's rotation (first half
against second half, positions from 0) gives the same heads in each layer. If it does not, or if the model does anything
else with cosines, the model keeps applying the rotation itself.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

TOLERANCE = 1e-5  # relative to the largest element of a head
HEAD_MULTIPLE, TABLE_MULTIPLE = 16, 8  # required by GroupQueryAttention
Heads = tuple[Tensor, Tensor]  # query [B, h, S, d] and key [B, kv, S, d] of one layer
Tables = tuple[Tensor, Tensor]  # cosines and sines [P, r / 2]; the first r of the d elements of a head are rotated


class RotaryTables(nn.Module):
    """The tables of a model's rotary modules for positions 0 to P - 1.

    Args:
        body: the module that contains the rotary modules.
        n_positions: P, number of positions.
    """

    _rotary: list[tuple[str, nn.Module]]

    def __init__(self, body: nn.Module, n_positions: int) -> None:
        super().__init__()
        named = [(name, part) for name, part in body.named_modules() if type(part).__name__.endswith("RotaryEmbedding")]
        object.__setattr__(self, "_rotary", named)  # avoids registering them as submodules: they belong to the model
        self.n_positions = n_positions
        self._indices: dict[Any, int] = {}
        self._noted: int | None = None

    @contextlib.contextmanager
    def held_back(self) -> Iterator[None]:
        """Let the rotary modules return placeholders inside a `with` block."""
        for name, part in self._rotary:
            part.forward = self._stand_ins(name, part.forward)
        try:
            yield
        finally:
            for _, part in self._rotary:
                del part.forward

    def take(self) -> Tables | None:
        """Return and clear the recorded tables that heads should be rotated by; None if there are none."""
        noted, self._noted = self._noted, None
        return None if noted is None else self._tables(noted)

    def _tables(self, index: int) -> Tables:
        return self.get_buffer(f"cos_{index}"), self.get_buffer(f"sin_{index}")

    def _stand_ins(self, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def hand_out(states: Tensor, *given: Any, **named: Any) -> "tuple[Cosines, Sines]":
            kind = (
                name,
                given[1:],
                tuple(sorted((key, value) for key, value in named.items() if key != "position_ids")),
            )
            if kind not in self._indices:
                position_ids = torch.arange(self.n_positions, device=states.device)[None]
                with torch.no_grad():
                    cos, sin = forward(states, position_ids, *kind[1], **dict(kind[2]))
                self._keep(kind, cos, sin)
            index = self._indices[kind]
            width = 2 * self._tables(index)[0].shape[1]
            return Cosines(self, index, width), Sines(width)

        return hand_out

    def _keep(self, kind: Any, cos: Tensor, sin: Tensor) -> None:
        half = cos.shape[-1] // 2
        if not all(torch.equal(table[..., :half], table[..., half:]) for table in (cos, sin)):
            raise ValueError("a rotary table should repeat its first half, found two different halves")
        index = len(self._indices)
        self._indices[kind] = index
        for part, table in (("cos", cos), ("sin", sin)):
            self.register_buffer(f"{part}_{index}", table[0, :, :half].float().contiguous(), persistent=False)

    def note(self, index: int) -> None:
        """Record that heads should be rotated by the tables of this index."""
        self._noted = index


class StandIn:
    """Placeholder for cosines or sines [B, S, r]; supports reshaping, conversion and multiplication only."""

    def __init__(self, width: int) -> None:
        self.shape = (1, 1, width)

    def unsqueeze(self, *_: object, **__: object) -> "StandIn":
        """Return itself."""
        return self

    to = type = float = unsqueeze


class Cosines(StandIn):
    """Placeholder for cosines: `head * cosines` returns the head and records the tables."""

    def __init__(self, tables: RotaryTables, index: int, width: int) -> None:
        super().__init__(width)
        self._tables, self._index = tables, index

    def __rmul__(self, head: Tensor) -> Tensor:
        self._tables.note(self._index)
        return head


class Sines(StandIn):
    """Placeholder for sines: `head * sines` returns `Nothing`."""

    def __rmul__(self, head: Tensor) -> "Nothing":
        return Nothing()


class Nothing:
    """Placeholder for zero: `head + nothing` returns the head."""

    def __radd__(self, head: Tensor) -> Tensor:
        return head


def turned(head: Tensor, tables: Tables) -> Tensor:
    """Return heads [B, h, S, d] rotated as GroupQueryAttention does for positions 0 to S - 1."""
    cos, sin = (table[: head.shape[2]] for table in tables)
    first, second, rest = head.tensor_split((cos.shape[1], 2 * cos.shape[1]), dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)


def turns_alike(rotated: Mapping[int, Heads], raw: Mapping[int, Heads], tables: Mapping[int, Tables | None]) -> bool:
    """Return whether the operator's rotation gives the same heads as the model's, in every layer.

    Args:
        rotated: the model's rotated query and key, by layer.
        raw: query and key before rotation, by layer.
        tables: recorded tables by layer; None for a layer without rotation.
    """
    for layer, heads in raw.items():
        chosen = tables[layer]
        if chosen is not None and (heads[0].shape[-1] % HEAD_MULTIPLE or chosen[0].shape[1] % TABLE_MULTIPLE):
            return False
        for own, head in zip(rotated[layer], heads, strict=True):
            expected = head if chosen is None else turned(head, chosen)
            if not torch.allclose(expected, own, rtol=0.0, atol=TOLERANCE * float(own.abs().max())):
                return False
    return any(chosen is not None for chosen in tables.values())
