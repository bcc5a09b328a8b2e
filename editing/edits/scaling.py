"""Coefficients of an edit: how much of a harm vector is subtracted from each tensor (torch-free)."""

import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prosocial.core.errors import InputError
from prosocial.core.json_text import parse_object
from prosocial.core.patterns import bounded_pattern
from prosocial.core.yaml_values import read_yaml

from ..depth import block_of, count_blocks, depth_factors


@dataclass(frozen=True)
class Ramp:
    """Coefficients that are linear in the depth of the layer (see `depth_factors`).

    Attributes:
        start: coefficient of the first layer and of the tensors outside the layers.
        end: coefficient of the last layer.

    Examples:
        >>> [group.coefficient for group in resolve_scale(Ramp(0.0, 1.0), [f"layers.{n}.w" for n in range(3)])]
        [0.0, 0.5, 1.0]
    """

    start: float
    end: float


@dataclass(frozen=True)
class Coefficients:
    """Coefficients by full tensor name; tensors that are not named get 0.

    Attributes:
        numbers: coefficient by tensor name.

    Examples:
        >>> [group.coefficient for group in resolve_scale(Coefficients({"a": 0.5}), ["a", "b"])]
        [0.5, 0.0]
    """

    numbers: Mapping[str, float]


Scale = float | Mapping[str, float] | Ramp | Coefficients


@dataclass(frozen=True)
class ScaledGroup:
    """Tensors with the same coefficient.

    Attributes:
        pattern: the regular expression that selected the tensors, or ramp and layer; None for one number for all
            tensors and for tensors selected by name.
        decimal: shortest decimal text that gives the user's number exactly.
        coefficient: the number rounded to fp32, as used in the arithmetic; at least 0.
        names: names of the tensors, sorted.
    """

    pattern: str | None
    decimal: str
    coefficient: float
    names: tuple[str, ...]


def resolve_scale(scale: Scale, names: Sequence[str]) -> tuple[ScaledGroup, ...]:
    """Return the coefficient of every tensor, as groups of tensors with the same one.

    Args:
        scale: one finite number, at least 0; or numbers by regular expression, which must match a full name (the first
            match applies, and tensors without a match get 0); or a ramp; or coefficients by name.
        names: names of the tensors that the vector changes.

    Returns:
        Groups in which every name occurs exactly once.

    Raises:
        InputError: a number is negative, not finite, or outside the range of fp32; a pattern is invalid or selects no
            tensor; no name has a layer number, for a ramp; a name is unknown.

    >>> [group.coefficient for group in resolve_scale({r".*mlp.*": 0.5}, ["attn.weight", "mlp.weight"])]
    [0.5, 0.0]
    """
    if isinstance(scale, Ramp):
        return _resolve_ramp(scale, sorted(names))
    if isinstance(scale, Coefficients):
        return _resolve_names(scale.numbers, sorted(names))
    if isinstance(scale, Mapping):
        return _resolve_table(scale, names)
    return (ScaledGroup(None, *_number(scale), tuple(sorted(names))),)


def _resolve_table(scale: Mapping[str, float], names: Sequence[str]) -> tuple[ScaledGroup, ...]:
    left, groups = sorted(names), []
    for pattern, number in scale.items():
        chosen = _matches(pattern, left)
        if not chosen:
            raise InputError(_no_match(pattern, names))
        groups.append(ScaledGroup(pattern, *_number(number), tuple(chosen)))
        left = [name for name in left if name not in set(chosen)]
    if not groups:
        raise InputError("a table of scales should hold at least one pattern: it is empty; give PATTERN=NUMBER")
    return (*groups, ScaledGroup(None, "0.0", 0.0, tuple(left))) if left else tuple(groups)


def _resolve_ramp(ramp: Ramp, names: Sequence[str]) -> tuple[ScaledGroup, ...]:
    _number(ramp.start), _number(ramp.end)  # if both ends are valid, all numbers between them are
    if not count_blocks(names):
        raise InputError(
            "a ramp should be used for tensors with layer numbers in their names, such as .layers.3., found none; give "
            "one number"
        )
    chosen: dict[tuple[str, float], list[str]] = {}
    for name, number in depth_factors(names, ramp.start, ramp.end).items():
        place = "outside the layers" if block_of(name) is None else f"layer {block_of(name)}"
        chosen.setdefault((f"ramp {ramp.start!r}:{ramp.end!r}, {place}", number), []).append(name)
    return tuple(ScaledGroup(place, *_number(number), tuple(part)) for (place, number), part in chosen.items())


def _resolve_names(numbers: Mapping[str, float], names: Sequence[str]) -> tuple[ScaledGroup, ...]:
    unknown = sorted(set(numbers) - set(names))
    if unknown or not numbers:
        actual = repr(unknown[0]) if unknown else "no coefficient"
        raise InputError(
            f"coefficients should be for tensors that the vector changes, found {actual}; correct the names"
        )
    chosen: dict[tuple[str, float], list[str]] = {}
    for name in names:
        chosen.setdefault(_number(numbers.get(name, 0.0)), []).append(name)
    return tuple(ScaledGroup(None, *number, tuple(part)) for number, part in chosen.items())


def parse_ramp(text: str) -> Ramp:
    """Parse a ramp from the command line.

    Raises:
        InputError: the text does not have the form START:END.

    >>> parse_ramp("0.2:0.8")
    Ramp(start=0.2, end=0.8)
    """
    start, separator, end = text.partition(":")
    if not separator:
        raise InputError(f"a ramp should be START:END, such as 0.2:0.8, found {text!r}")
    return Ramp(_parse_number(start), _parse_number(end))


def read_coefficients(file: Path) -> Coefficients:
    """Read a JSON or YAML file that maps tensor names to numbers.

    Raises:
        InputError: the file is missing, has another content, or names a tensor twice.
    """
    try:
        text = file.read_text(encoding="utf-8")
        is_yaml = file.suffix in (".yaml", ".yml")
        value = read_yaml(text, where="it") if is_yaml else parse_object(text, where="it", finite=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{file} should be a JSON or YAML file that maps tensor names to numbers: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{file} should map tensor names to numbers, found {type(value).__name__}")
    for name, number in value.items():
        if not isinstance(name, str) or isinstance(number, bool) or not isinstance(number, int | float):
            shown = f"{number!r:.80}" if isinstance(number, str | bool | None) else type(number).__name__
            raise InputError(f"{file} should give each tensor a number, found {str(name)!r:.80}: {shown}")
    try:
        return Coefficients({name: float(number) for name, number in value.items()})
    except OverflowError:
        raise InputError(f"{file} should give each tensor a number below 1e308, found a larger one") from None


def parse_scale(texts: Sequence[str]) -> Scale:
    """Parse scales from the command line: one number, or several `PATTERN=NUMBER`.

    Raises:
        InputError: the texts have neither form, or a pattern occurs twice.

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
    compiled = bounded_pattern(pattern, what="a scale's pattern")
    return [name for name in names if compiled.fullmatch(name)]


def _no_match(pattern: str, names: Sequence[str]) -> str:
    if _matches(pattern, names):
        return (
            f"pattern {pattern!r} should select some tensor, earlier patterns match all of its tensors already: put it "
            "first"
        )
    within = [name for name in names if pattern in name]
    example = f", such as {min(within or names)}" if names else ""
    advice = f", it is a part of {len(within)} of them: write '.*{re.escape(pattern)}.*'" if within else ""
    return (
        f"pattern {pattern!r} should match the full name of a tensor that the vector changes{example}: it matches none"
        f"{advice}"
    )


def _number(value: float) -> tuple[str, float]:
    """Return the shortest decimal text of a number and its value rounded to fp32."""
    if isinstance(value, bool) or not math.isfinite(value) or value < 0:
        raise InputError(
            f"a scale should be a finite number, at least 0, found {value!r}: vectors can only be subtracted"
        )
    number = abs(float(value))  # -0.0 becomes 0.0
    try:
        (coefficient,) = struct.unpack("<f", struct.pack("<f", number))
    except OverflowError:
        coefficient = math.inf
    if not math.isfinite(coefficient) or (number > 0 and coefficient == 0):
        raise InputError(f"a scale should be in the range of fp32, found {value!r}")
    return repr(number), coefficient
