"""Parameters of methods that are numbers: the values that one may have, and those that a sweep tries."""

import math
import sys
from dataclasses import dataclass, replace
from types import NoneType
from typing import Annotated, get_args, get_origin

from prosocial.core.errors import InputError


@dataclass(frozen=True)
class Number:
    """The values of a parameter: `density: Annotated[float, Number(0, 1)]` in the signature of a method.

    Attributes:
        low, high: the limits. Both are included, but for `low` where `above` is set.
        above: whether the value should be above `low`.
        search: lowest and highest value that a sweep draws; None: a sweep leaves the parameter alone.
        log: whether a sweep draws evenly over magnitudes.
        whole: whether the value should be a whole number, up to 2**53; set for parameters annotated with `int`.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    search: tuple[float, float] | None = None
    log: bool = False
    whole: bool = False

    def check(self, name: str, value: object) -> float:
        """Return a value of the parameter `name` as an int if it should be whole, else as a float.

        Raises:
            InputError: it is not such a number.

        >>> Number(1, whole=True).check("rank", 4.0)
        4
        """
        if isinstance(value, bool) or not isinstance(value, int | float) or not self._holds(value):
            raise InputError(f"{name} should be {self}, found {value!r:.60}")
        return int(value) if self.whole else float(value)

    def _holds(self, value: float) -> bool:
        fits = abs(value) <= (2**53 if self.whole else sys.float_info.max) and value <= self.high
        return fits and (self.low < value or (value == self.low and not self.above)) and not (self.whole and value % 1)

    def __str__(self) -> str:
        """The values in words.

        >>> print(Number(0, 1, above=True), Number(1, whole=True), Number(), sep=", ")
        a number in (0, 1], a whole number from 1, a number
        """
        kind = "a whole number" if self.whole else "a number"
        if self.high < math.inf:
            return f"{kind} in {'(' if self.above else '['}{self.low:g}, {self.high:g}]"
        return kind if self.low == -math.inf else f"{kind} {'above' if self.above else 'from'} {self.low:g}"


Density = Annotated[float, Number(0, 1, above=True, search=(0.02, 1.0), log=True)]
Seed = Annotated[int, Number(0)]


def number_of(annotation: object) -> Number | None:
    """Return the values that an annotation names; None if it is not that of a number.

    >>> number_of(Annotated[int | None, Number(1)]), number_of(str)
    (Number(low=1, high=inf, above=False, search=None, log=False, whole=True), None)
    """
    kind, *marks = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    kinds = set(get_args(kind) or [kind]) - {NoneType}
    if not kinds <= {int, float}:
        return None
    return replace(next((mark for mark in marks if isinstance(mark, Number)), Number()), whole=kinds == {int})
