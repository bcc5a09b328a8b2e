"""How much of a harm vector is subtracted, tensor by tensor (torch-free)."""

import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import InputError

Scale = float | Mapping[str, float]


@dataclass(frozen=True)
class ScaledGroup:
    """Tensors that share a coefficient.

    Attributes:
        pattern: the regular expression that chose them; None for one number over all.
        decimal: the number as given, in the shortest decimals that give it back.
        coefficient: the number rounded to fp32, which the arithmetic uses; at least 0.
        names: of the tensors, sorted.
    """

    pattern: str | None
    decimal: str
    coefficient: float
    names: tuple[str, ...]


def resolve_scale(scale: Scale, names: Sequence[str]) -> tuple[ScaledGroup, ...]:
    """Give every tensor its coefficient.

    Args:
        scale: one finite number, at least 0; or numbers by regular expression, which must match a whole name; the first
            that matches counts, and tensors that none matches get 0.
        names: tensors that the vector changes.

    Returns:
        Groups that hold every name exactly once.

    Raises:
        InputError: a number is negative, not finite, or no number in fp32; a pattern is broken or chooses no tensor.

    >>> [group.coefficient for group in resolve_scale({r".*mlp.*": 0.5}, ["attn.weight", "mlp.weight"])]
    [0.5, 0.0]
    """
    if not isinstance(scale, Mapping):
        return (ScaledGroup(None, *_number(scale), tuple(sorted(names))),)
    left, groups = sorted(names), []
    for pattern, number in scale.items():
        chosen = _matches(pattern, left)
        if not chosen:
            raise InputError(_no_match(pattern, names))
        groups.append(ScaledGroup(pattern, *_number(number), tuple(chosen)))
        left = [name for name in left if name not in set(chosen)]
    if not groups:
        raise InputError("a table of scales should hold at least one pattern: it is empty")
    return (*groups, ScaledGroup(None, "0.0", 0.0, tuple(left))) if left else tuple(groups)


def parse_scale(texts: Sequence[str]) -> Scale:
    """Read scales from a command line: one number, or several `PATTERN=NUMBER`.

    Raises:
        InputError: neither of the two.

    >>> parse_scale(["0.6"]), parse_scale([".*mlp.*=0.5"])
    (0.6, {'.*mlp.*': 0.5})
    """
    if len(texts) == 1 and "=" not in texts[0]:
        return _parse_number(texts[0])
    table: dict[str, float] = {}
    for text in texts:
        pattern, separator, number = text.rpartition("=")
        if not separator or pattern in table:
            raise InputError(f"a scale should be one number, or PATTERN=NUMBER with each pattern once, found {text!r}")
        table[pattern] = _parse_number(number)
    return table


def _parse_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"a scale should be a number, found {text!r}") from None


def _matches(pattern: str, names: Sequence[str]) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"a scale's pattern should be a regular expression, found {pattern!r}: {error}") from None
    return [name for name in names if compiled.fullmatch(name)]


def _no_match(pattern: str, names: Sequence[str]) -> str:
    if _matches(pattern, names):
        return f"pattern {pattern!r} should choose some tensor: earlier patterns took all that it matches; put it first"
    example = f", such as {min(names)}" if names else ""
    return (
        f"pattern {pattern!r} should match the whole name of a tensor that the vector changes{example}: it matches none"
    )


def _number(value: float) -> tuple[str, float]:
    """Return the shortest decimals of a number and its fp32 value."""
    if isinstance(value, bool) or not math.isfinite(value) or value < 0:
        raise InputError(
            f"a scale should be a finite number, at least 0, found {value!r}: to add a vector is not offered"
        )
    number = abs(float(value))  # -0.0 becomes 0.0
    try:
        (coefficient,) = struct.unpack("<f", struct.pack("<f", number))
    except OverflowError:
        coefficient = math.inf
    if not math.isfinite(coefficient) or (number > 0 and coefficient == 0):
        raise InputError(f"a scale should be a number in fp32, found {value!r}")
    return repr(number), coefficient
