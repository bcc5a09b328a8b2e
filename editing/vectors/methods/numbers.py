"""Numeric parameters of methods: their allowed values, and the values that a sweep tries."""

import math
import sys
from dataclasses import dataclass, replace
from types import NoneType
from typing import Annotated, get_args, get_origin

from prosocial.core.errors import InputError


@dataclass(frozen=True)
class Number:
    """The allowed values of a parameter: `density: Annotated[float, Number(0, 1)]` in the signature of a method.

    Attributes:
        low: lower limit, allowed unless `above` is set.
        high: upper limit, allowed.
        above: whether the value must be above `low`.
        search: lowest and highest value that a sweep tries; None if a sweep does not vary the parameter.
        log: whether a sweep samples log-uniformly.
        whole: whether the value must be a whole number, up to 2**53; set for parameters annotated with `int`.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    search: tuple[float, float] | None = None
    log: bool = False
    whole: bool = False

    def check(self, name: str, value: object) -> float:
        """Validate a value of the parameter `name`; return it as an int if it must be whole, otherwise as a float.

        Raises:
            InputError: the value is not a number, or is out of range.

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
        """The allowed values in words.

        >>> print(Number(0, 1, above=True), Number(1, whole=True), Number(), sep=", ")
        a number in (0, 1], a whole number of at least 1, a number
        """
        kind = "a whole number" if self.whole else "a number"
        if self.high < math.inf:
            return f"{kind} in {'(' if self.above else '['}{self.low:g}, {self.high:g}]"
        return kind if self.low == -math.inf else f"{kind} {'above' if self.above else 'of at least'} {self.low:g}"


Density = Annotated[float, Number(0, 1, above=True, search=(0.02, 1.0), log=True)]
Seed = Annotated[int, Number(0)]


def number_of(annotation: object) -> Number | None:
    """Return the allowed values that an annotation declares; None if it is not the annotation of a number.

    >>> number_of(Annotated[int | None, Number(1)]), number_of(str)
    (Number(low=1, high=inf, above=False, search=None, log=False, whole=True), None)
    """
    kind, *marks = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    kinds = set(get_args(kind) or [kind]) - {NoneType}
    if not kinds <= {int, float}:
        return None
    return replace(next((mark for mark in marks if isinstance(mark, Number)), Number()), whole=kinds == {int})
