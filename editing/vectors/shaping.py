"""One tensor of a vector: read from every run, shaped by the method, checked, and made ready to be written."""

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .direction import Direction, compare
from .methods.method import Prepared
from .runs import Array, Relation, Runs, mean
from .sparse import is_smaller, split

if TYPE_CHECKING:
    from .vector import LowRank

AHEAD = 2  # tensors in memory before and behind the one that is shaped


@dataclass(frozen=True)
class Raw:
    """A tensor as the runs have it.

    Attributes:
        delta: mean of the runs.
        relations: of base and harmful parent, None of a run that does not change it.
        harmful_blake3: digest of each harmful parent's tensor.
    """

    name: str
    delta: Array
    relations: list[Relation | None]
    harmful_blake3: tuple[str | None, ...]


@dataclass(frozen=True)
class Shaped:
    """A tensor ready to be written.

    Attributes:
        raw: what it was.
        delta: what the method made of it.
        factors: of the delta, where it is stored as such.
        entries: places and values of the delta, where it is stored sparse.
        direction: checked.
    """

    raw: Raw
    delta: Array
    factors: "LowRank | None"
    entries: tuple[NDArray[Any], Array] | None
    direction: Direction


class Shaping:
    """Shapes the tensors of the runs by a method; what is read, and what is left to do, runs in threads.

    Args:
        runs: read tensor by tensor.
        prepared: the method.
        keep_factors: whether deltas that are products of factors stay so.
    """

    def __init__(self, runs: Runs, prepared: Prepared, *, keep_factors: bool) -> None:
        self._runs, self._prepared, self._keep_factors = runs, prepared, keep_factors

    def tensors(self) -> Iterator[Shaped]:
        """Yield every tensor, in the order of names.

        Raises:
            InputError: a delta is not finite, or the method turned one round.
        """
        with ThreadPoolExecutor(AHEAD) as pool:
            coming: deque[Future[Raw]] = deque()
            going: deque[Future[Shaped]] = deque()
            for name in [*self._runs.names, *[None] * 2 * AHEAD]:
                if name is not None:
                    coming.append(pool.submit(self._read, name))
                if coming and (name is None or len(coming) > AHEAD):
                    raw = coming.popleft().result()
                    going.append(pool.submit(self._finish, raw, *self._shape(raw)))
                if going and (name is None or len(going) > AHEAD):
                    yield going.popleft().result()

    def _read(self, name: str) -> Raw:
        readings = self._runs.read(name)
        deltas = self._runs.deltas_of(name, readings)
        for delta in deltas:
            _check_finite(name, delta)
        relations = [None if each is None else each.relation for each in readings]
        return Raw(name, mean(deltas), relations, self._runs.digests_of(readings))

    def _shape(self, raw: Raw) -> "tuple[Array, LowRank | None]":
        """Return the shaped delta, and its factors if it is stored so; called in the order of names."""
        if self._prepared.factorise:
            factors = self._prepared.factorise(raw.name, raw.delta)
            return (raw.delta, None) if factors is None else (factors.product().numpy(), factors)
        factors = self._runs.low_rank(raw.name) if self._keep_factors else None
        return self._prepared.transform(raw.name, raw.delta), factors

    def _finish(self, raw: Raw, delta: Array, factors: "LowRank | None") -> Shaped:
        direction = compare(raw.name, delta, raw.delta)
        sparse = factors is None and is_smaller(delta.size, direction.n_zeros)
        entries = split(delta.reshape(-1), delta.size - direction.n_zeros) if sparse else None
        return Shaped(raw, delta, factors, entries, direction)


def _check_finite(name: str, delta: Array) -> None:
    with np.errstate(all="ignore"):
        if math.isfinite(float(delta.sum())):  # a sum with NaN or infinity in it is not: the quick way
            return
    n_bad = delta.size - int(np.count_nonzero(np.isfinite(delta)))
    if n_bad:
        raise InputError(
            f"the difference of {name} should be finite, found {n_bad} NaN or infinite elements; repair the parents"
        )
