"""Parameters of methods as checked numbers."""

from ...errors import InputError


def share(name: str, value: object) -> float:
    """Return a share of a whole.

    Raises:
        InputError: it is no number in (0, 1].
    """
    number = _number(name, value)
    if not 0 < number <= 1:
        raise InputError(f"{name} should be in (0, 1], found {value}")
    return number


def at_least(name: str, value: object, minimum: float) -> float:
    """Return a finite number.

    Raises:
        InputError: it is below `minimum`, or no finite number.
    """
    number = _number(name, value)
    if not minimum <= number < float("inf"):
        raise InputError(f"{name} should be a finite number from {minimum:g}, found {value}")
    return number


def whole(name: str, value: object, minimum: int) -> int:
    """Return a whole number.

    Raises:
        InputError: it is below `minimum`, above 2**53, or not whole.
    """
    number = at_least(name, value, minimum)
    if number != int(number) or number > 2**53:
        raise InputError(f"{name} should be a whole number from {minimum}, found {value}")
    return int(number)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{name} should be a number, found {value!r:.60}")
    return float(value)
