"""Preferences over named attributes as non-negative weights with a sum of 1 (torch-free)."""

import math
from collections.abc import Mapping, Sequence

from .errors import InputError, UnknownNameError


def simplex_weights(weights: Mapping[str, float], attributes: Sequence[str]) -> list[float]:
    """Return one weight per attribute, scaled to a sum of 1.

    Args:
        weights: weight by attribute name; attributes that are not named get 0.
        attributes: names of the k attributes, in the order of the result.

    Raises:
        UnknownNameError: a name is not among the attributes.
        InputError: a weight is negative or not finite, or their sum is 0 or not finite.

    >>> simplex_weights({"empathy": 3.0, "helpfulness": 1.0}, ["empathy", "truthfulness", "helpfulness"])
    [0.75, 0.0, 0.25]
    """
    for name, weight in weights.items():
        if name not in attributes:
            raise UnknownNameError("attribute", name, attributes)
        if not (math.isfinite(weight) and weight >= 0):
            raise InputError(f"a preference weight should be finite and at least 0, found {name}={weight}; change it")
    total = sum(weights.values())
    if not 0 < total < math.inf:
        raise InputError(f"preference weights should have a finite sum above 0, found {dict(weights)}")
    return [weights.get(name, 0.0) / total for name in attributes]
