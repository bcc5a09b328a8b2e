"""Regular expressions from strangers: those whose matching could take very long are refused (torch-free).

Python's matcher backtracks. Its work grows with the number of ways in which a text can be divided among the repeats and
alternatives of a pattern, so that ways are counted before anything is matched.
"""

import math
import re
from re import _constants as codes  # type: ignore[attr-defined]  # the parser has no public name since Python 3.11
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from .errors import InputError

LONGEST_PATTERN, LONGEST_NAME, MOST_WAYS = 500, 200, 10_000_000
_REPEATS = (codes.MAX_REPEAT, codes.MIN_REPEAT)
_POSSESSIVE = (codes.POSSESSIVE_REPEAT, codes.ATOMIC_GROUP)


def bounded_pattern(pattern: str, *, what: str, text_length: int = LONGEST_NAME) -> re.Pattern[str]:
    """Return a compiled pattern whose matching takes a bounded time.

    Args:
        pattern: the regular expression.
        what: what the pattern is, for errors.
        text_length: length in characters of the texts that it is matched with.

    Raises:
        InputError: the text is not a regular expression, is too long, or could be matched in too many ways.

    Examples:
        >>> bounded_pattern(".*mlp.*", what="a scale's pattern").fullmatch("layers.3.mlp.up") is None
        False
        >>> bounded_pattern("(a+)+b", what="a scale's pattern")
        Traceback (most recent call last):
        ...
        prosocial.core.errors.InputError: a scale's pattern should have no repeat inside a repeat, found '(a+)+b'
    """
    if len(pattern) > LONGEST_PATTERN:
        raise InputError(f"{what} should have at most {LONGEST_PATTERN} characters, found {len(pattern)}")
    try:
        compiled, parsed = re.compile(pattern), parser.parse(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise InputError(f"{what} should be a regular expression, found {pattern!r:.80}: {error}") from None
    ways = _ways(parsed, text_length)
    if ways is None:
        raise InputError(f"{what} should have no repeat inside a repeat, found {pattern!r:.80}")
    if ways > MOST_WAYS:
        raise InputError(f"{what} should have fewer repeats and alternatives, found {pattern!r:.80}")
    return compiled


def _ways(parsed: Any, length: int) -> int | None:
    """Return a bound on the ways in which a pattern can be matched; None for an exponential number."""
    total, n_repeats = 1, 0
    for code, value in parsed:
        if code in _REPEATS or code in _POSSESSIVE[:1]:
            low, high, body = value
            inner = _ways(body, length)
            if inner is None or (inner > 1 and high > 1):
                return None
            if high > low:
                n_repeats += high > 1
                total = total * max(1, min(int(high), length) - low + 1) * inner // max(1, n_repeats)
        else:
            inside = [_ways(body, length) for body in _bodies(code, value)]
            if None in inside:
                return None
            known = [ways for ways in inside if ways is not None]
            total *= sum(known) if code is codes.BRANCH else math.prod(known)  # one alternative after the other
        if total > MOST_WAYS:
            return total
    return total


def _bodies(code: Any, value: Any) -> list[Any]:
    """Return the patterns inside a group, an assertion or an alternative."""
    if code is codes.BRANCH:
        return list(value[1])
    if code is codes.SUBPATTERN:
        return [value[-1]]
    if code in (codes.ASSERT, codes.ASSERT_NOT):
        return [value[1]]
    if code is codes.GROUPREF_EXISTS:
        return [body for body in value[1:] if body is not None]
    return [value] if code is codes.ATOMIC_GROUP else []
