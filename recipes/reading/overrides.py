"""Applies changes from the command line, such as `gate.rank=8`, to a recipe."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from prosocial.core.errors import InputError
from prosocial.core.yaml_values import read_yaml


def parse_override(text: str) -> tuple[tuple[str, ...], Any]:
    """Return the keys and the value of `a.b=c`; the value is parsed as YAML (`0.5`, `[a, b]`, `true`, `text`).

    Raises:
        InputError: the `=` is missing, a key is empty, or the value is not YAML.

    Examples:
        >>> parse_override("gate.rank=8")
        (('gate', 'rank'), 8)
    """
    path, equals, value = text.partition("=")
    keys = tuple(path.strip().split("."))
    if not equals or not all(keys):
        raise InputError(f"an override should look like a.b=value, found {text!r}")
    return keys, read_yaml(value, where=f"the value of override {path.strip()!r}")


def apply_overrides(recipe: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return a copy of a recipe with every override applied in order; a key may be an index into a list.

    Raises:
        InputError: an override is malformed, or its path leads through a value that has no keys.

    Examples:
        >>> apply_overrides({"gate": {"rank": 4}}, ["gate.rank=8", "seed=1"])
        {'gate': {'rank': 8}, 'seed': 1}
    """
    changed = copy.deepcopy(dict(recipe))
    for text in overrides:
        keys, value = parse_override(text)
        _set(changed, keys, value)
    return changed


def _set(recipe: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    place: Any = recipe
    for depth, key in enumerate(keys):
        at = ".".join(keys[:depth])
        if not isinstance(place, dict | list):
            raise InputError(f"override {'.'.join(keys)}: {at} should be a section or a list, found {place!r:.60}")
        step: Any = _index(place, key, at=at) if isinstance(place, list) else key
        if depth == len(keys) - 1:
            place[step] = value
            return
        # A missing or empty section means that all its values are defaults.
        if isinstance(place, dict) and place.get(step) is None:
            place[step] = {}
        place = place[step]


def _index(items: list[Any], key: str, *, at: str) -> int:
    if not key.isdecimal() or int(key) >= len(items):
        raise InputError(f"{at} is a list, its index should be 0 to {len(items) - 1}, found {key!r}")
    return int(key)
