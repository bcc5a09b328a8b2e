"""The weights of one vector that give every bit of a tensor back: an interval of fp32 numbers, found by bisection."""

import struct
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .pieces import Piece
from .rules import Rule

LARGEST_WEIGHT = 2.0**14
FIRST_ELEMENTS = 1 << 11  # a few elements narrow the interval so far that most others are settled
Bounds = tuple[float, float]


class ExactSearch:
    """Intersects, piece by piece, the weights that one rule allows.

    An element whose bits come out right at both ends of the interval comes out right everywhere between, because rules
    are monotone: it is settled by two predictions. Only the others are bisected.

    Args:
        rule: the arithmetic that is held to have been used.
    """

    needs_confirmation = False

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._low, self._high = _key(-LARGEST_WEIGHT), _key(LARGEST_WEIGHT)

    @property
    def title(self) -> str:
        """How the rule rounds."""
        return self._rule.title

    def narrow(self, piece: Piece) -> bool:
        """Keep the weights that explain the piece too; False if there are none."""
        while True:
            wrong = [self.misfits(piece, [weight]) for weight in self.ends]
            unsettled = np.flatnonzero(wrong[0] | wrong[-1])
            few = unsettled[:: -(-len(unsettled) // FIRST_ELEMENTS) or 1]
            if len(few) and not self._bisect(piece.take(few)):
                return False
            if len(few) == len(unsettled):
                return True

    def misfits(self, piece: Piece, weights: list[float]) -> NDArray[np.bool_]:
        """Return [n], True where a weight does not give the stored element."""
        wrong: NDArray[np.bool_] = self.predict(piece, weights) != piece.found
        return wrong

    def predict(self, piece: Piece, weights: list[float]) -> NDArray[np.float32]:
        """Return [n], what a weight gives, as stored."""
        return self._rule.predict(piece.base, piece.deltas[0], weights[0])

    @property
    def weights(self) -> list[float]:
        """A weight that explains all pieces so far, in the middle."""
        return [_value((self._low + self._high) // 2)]

    @property
    def ends(self) -> set[float]:
        """The lowest and the highest weight that explain all pieces so far; one where they meet."""
        return {_value(self._low), _value(self._high)}

    @property
    def bounds(self) -> list[Bounds]:
        """The real numbers that round to the weights left; infinite where nothing bounds them."""
        low = -np.inf if self._low == _key(-LARGEST_WEIGHT) else (_value(self._low - 1) + _value(self._low)) / 2
        high = np.inf if self._high == _key(LARGEST_WEIGHT) else (_value(self._high) + _value(self._high + 1)) / 2
        return [(float(low), float(high))]

    def _bisect(self, piece: Piece) -> bool:
        sign = np.sign(piece.deltas[0])

        def sides(key: int) -> NDArray[np.float32]:
            """Return [n], above 0 where the weight is too high, below 0 where too low, NaN where none will do."""
            difference = np.sign(self._rule.predict(piece.base, piece.deltas[0], _value(key)) - piece.found)
            return np.where((sign == 0) & (difference != 0), np.nan, difference * sign)

        low = _first(lambda key: bool((sides(key) >= 0).all()), self._low, self._high)
        if low is None or not (sides(low) <= 0).all():
            return False
        high = _first(lambda key: bool((sides(-key) <= 0).all()), -self._high, -low)
        assert high is not None  # the lower end itself is not too high
        self._low, self._high = low, -high
        return True


def _first(holds: Callable[[int], bool], low: int, high: int) -> int | None:
    """Return the first key of [low, high] from which on something holds; None if it does not hold at the end."""
    if not holds(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return high


def _key(value: float) -> int:
    """Return a number of fp32 as a whole number in the same order.

    >>> _key(-0.5) < _key(-0.25) < _key(0.0) < _key(2.0)
    True
    """
    bits: int = struct.unpack("<i", struct.pack("<f", value))[0]
    return bits if bits >= 0 else -(bits & 0x7FFFFFFF)


def _value(key: int) -> float:
    """Return the number of fp32 of a key."""
    value: float = struct.unpack("<f", struct.pack("<I", abs(key)))[0]
    return value if key >= 0 else -value
