"""What differs between what was written down and what is there."""

import math
from collections.abc import Iterator
from typing import Any


def differences(expected: Any, actual: Any, at: str = "") -> Iterator[str]:
    """Yield a line for each difference; what only `actual` has is none, nor are the last digits of a float."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key, value in expected.items():
            yield from differences(value, actual.get(key), f"{at}.{key}")
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        for number, (left, right) in enumerate(zip(expected, actual, strict=True)):
            yield from differences(left, right, f"{at}[{number}]")
    elif isinstance(expected, float) and isinstance(actual, float):
        if not math.isclose(expected, actual, rel_tol=1e-3, abs_tol=1e-5):
            yield f"{at} should be {expected}, is {actual}"
    elif expected != actual:
        yield f"{at} should be {expected!r}, is {actual!r}"
