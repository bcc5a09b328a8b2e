"""Search for the weights of one vector that reproduce a tensor bit for bit: an fp32 interval, by bisection."""

import struct
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .pieces import Piece
from .rules import Rule

LARGEST_WEIGHT = 2.0**14
FIRST_ELEMENTS = 1 << 11  # a few elements narrow the interval so far that most others need no bisection
Bounds = tuple[float, float]


class ExactSearch:
    """Intersects the weights that one rule allows, piece by piece.

    Rules are monotone in the weight, so an element that is reproduced at both ends of the interval is reproduced
    everywhere between. Only elements that fail at an end are bisected.

    Args:
        rule: the arithmetic assumed to have been used.
    """

    needs_confirmation = False

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._low, self._high = _key(-LARGEST_WEIGHT), _key(LARGEST_WEIGHT)

    @property
    def title(self) -> str:
        """The name of the rule's rounding."""
        return self._rule.title

    def narrow(self, piece: Piece) -> bool:
        """Keep only the weights that also explain this piece; return False if none are left."""
        while True:
            wrong = [self.misfits(piece, [weight]) for weight in self.ends]
            unsettled = np.flatnonzero(wrong[0] | wrong[-1])
            few = unsettled[:: -(-len(unsettled) // FIRST_ELEMENTS) or 1]
            if len(few) and not self._bisect(piece.take(few)):
                return False
            if len(few) == len(unsettled):
                return True

    def misfits(self, piece: Piece, weights: list[float]) -> NDArray[np.bool_]:
        """Return [n], True where the weight does not reproduce the stored element."""
        wrong: NDArray[np.bool_] = self.predict(piece, weights) != piece.model
        return wrong

    def predict(self, piece: Piece, weights: list[float]) -> NDArray[np.float32]:
        """Return [n], the elements that a weight gives, rounded to the stored dtype."""
        return self._rule.predict(piece.base, piece.deltas[0], weights[0])

    @property
    def weights(self) -> list[float]:
        """The weight in the middle of those that explain all pieces so far."""
        return [_value((self._low + self._high) // 2)]

    @property
    def ends(self) -> set[float]:
        """The lowest and highest weight that explain all pieces so far; one number if they are equal."""
        return {_value(self._low), _value(self._high)}

    @property
    def bounds(self) -> list[Bounds]:
        """The interval of real numbers that round to the remaining weights; infinite where unbounded."""
        low = -np.inf if self._low == _key(-LARGEST_WEIGHT) else (_value(self._low - 1) + _value(self._low)) / 2
        high = np.inf if self._high == _key(LARGEST_WEIGHT) else (_value(self._high) + _value(self._high + 1)) / 2
        return [(float(low), float(high))]

    def _bisect(self, piece: Piece) -> bool:
        sign = np.sign(piece.deltas[0])

        def sides(key: int) -> NDArray[np.float32]:
            """Return [n], above 0 where the weight is too high, below 0 where too low, NaN where no weight fits."""
            difference = np.sign(self._rule.predict(piece.base, piece.deltas[0], _value(key)) - piece.model)
            return np.where((sign == 0) & (difference != 0), np.nan, difference * sign)

        low = _first(lambda key: bool((sides(key) >= 0).all()), self._low, self._high)
        if low is None or not (sides(low) <= 0).all():
            return False
        high = _first(lambda key: bool((sides(-key) <= 0).all()), -self._high, -low)
        assert high is not None  # the lower end itself is not too high
        self._low, self._high = low, -high
        return True


def _first(holds: Callable[[int], bool], low: int, high: int) -> int | None:
    """Return the first key in [low, high] for which a monotone condition holds; None if it holds for none."""
    if not holds(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return high


def _key(value: float) -> int:
    """Return an integer for an fp32 number such that integers are ordered as the numbers are.

    >>> _key(-0.5) < _key(-0.25) < _key(0.0) < _key(2.0)
    True
    """
    bits: int = struct.unpack("<i", struct.pack("<f", value))[0]
    return bits if bits >= 0 else -(bits & 0x7FFFFFFF)


def _value(key: int) -> float:
    """Return the fp32 number of a key."""
    value: float = struct.unpack("<f", struct.pack("<I", abs(key)))[0]
    return value if key >= 0 else -value
