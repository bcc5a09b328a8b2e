"""Shaping the tensors of a vector: each is read from all runs, shaped by the method and checked."""

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...checkpoints.numbers import LOOP_ELEMENTS, buffer
from ..methods.method import Prepared
from ..sparse import Entries, Room, is_smaller
from .direction import Direction, Products, check_finite, compare
from .runs import Array, HarmfulRun, Origin, Runs, mean

if TYPE_CHECKING:
    from ..vector import LowRank

AHEAD = 2  # number of tensors that are shaped while another one is written


@dataclass(frozen=True)
class Shaped:
    """A shaped tensor, ready to be written.

    Attributes:
        name: name of the tensor.
        shape: shape of the tensor.
        stored: the shaped delta as it will be stored: dense, as factors, or as indices and values.
        direction: measures of the shaped delta relative to the raw one.
        origins: information about the parents from each run; None for a run that does not change the tensor.
    """

    name: str
    shape: tuple[int, ...]
    stored: "Array | LowRank | Entries"
    direction: Direction
    origins: list[Origin | None]


class Shaping:
    """Shapes the tensors of the runs by a method, several tensors at once.

    Args:
        runs: the harmful runs.
        prepared: the prepared method.
        keep_factors: store deltas that are products of low-rank factors as factors.
    """

    def __init__(self, runs: Runs, prepared: Prepared, *, keep_factors: bool) -> None:
        self._runs, self._prepared, self._keep_factors = runs, prepared, keep_factors
        self._rooms: list[Room] = []

    def tensors(self) -> Iterator[Shaped]:
        """Yield every shaped tensor, sorted by name.

        Raises:
            InputError: a delta is not finite, or the method reversed its direction.
        """
        single, by_piece = self._runs.single, self._prepared.by_piece
        with ThreadPoolExecutor(AHEAD) as pool:
            coming: deque[Future[Shaped]] = deque()
            for name in self._runs.names:
                if single is not None and by_piece is not None:
                    coming.append(pool.submit(self._shape_pieces, name, single, by_piece(name)))
                else:
                    coming.append(pool.submit(self._shape_whole, name))
                if len(coming) > AHEAD:
                    yield from self._next(coming)
            while coming:
                yield from self._next(coming)

    def _next(self, coming: "deque[Future[Shaped]]") -> Iterator[Shaped]:
        """Yield the first tensor; release its memory when the caller continues."""
        shaped = coming.popleft().result()
        yield shaped
        if isinstance(shaped.stored, Entries):
            shaped.stored.release()

    def _shape_whole(self, name: str) -> Shaped:
        readings = self._runs.read(name)
        deltas = self._runs.deltas_of(name, readings)
        for delta in deltas:
            check_finite(name, [delta])
        raw = mean(deltas)
        delta, factors = self._shape(name, raw)
        direction = compare(name, delta, raw)
        stored: Array | LowRank | Entries = delta if factors is None else factors
        if factors is None and is_smaller(delta.size, direction.n_zeros):
            stored = Entries.of(delta.reshape(-1))
        return Shaped(name, raw.shape, stored, direction, [each.origin if each else None for each in readings])

    def _shape(self, name: str, raw: Array) -> "tuple[Array, LowRank | None]":
        """Return the shaped delta, and its factors if it is to be stored as factors."""
        if self._prepared.factorise:
            factors = self._prepared.factorise(name, raw)
            return (raw, None) if factors is None else (factors.product().numpy(), factors)
        factors = self._runs.low_rank(name) if self._keep_factors else None
        return self._prepared.transform(name, raw), factors

    def _shape_pieces(self, name: str, run: HarmfulRun, shape: Callable[[Array, Array], None]) -> Shaped:
        """Shape a delta that is mostly zero afterwards, without holding it in memory as a whole."""
        entries, products = Entries(math.prod(run.shape(name)), self._rooms), Products()

        def take(piece: Array) -> None:
            for at in range(0, len(piece), LOOP_ELEMENTS):
                raw = piece[at : at + LOOP_ELEMENTS]
                shaped = buffer(len(raw))
                shape(raw, shaped)
                products.add(shaped, raw)
                entries.add(shaped)

        origin = run.feed(name, take)
        if not products.finite:
            check_finite(name, run.pieces(name))
        direction = products.direction(name, n_zeros=entries.n_elements - entries.n_entries)
        sparse = is_smaller(entries.n_elements, direction.n_zeros)
        return Shaped(name, run.shape(name), entries if sparse else entries.whole(), direction, [origin])
