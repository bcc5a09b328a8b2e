"""The shortest decimal in a recovered interval, as a number that people recognise."""

import math
import struct
from collections.abc import Iterable, Sequence

from .audit_document import Weight
from .exact import Bounds

DECIMALS = 9
SHORT_DECIMALS = 3


def describe_weight(vector: str, bounds: Bounds) -> Weight:
    """Return the interval of a vector's weight with the shortest decimal in it, or a short decimal rounded to bf16.

    >>> describe_weight("v", (-0.60000003, -0.5999999)).estimate
    -0.6
    >>> weight = describe_weight("v", (-0.60156253, -0.60151))
    >>> weight.estimate, weight.bf16_of
    (-0.6015625, -0.6)
    """
    low, high = bounds
    if not (math.isfinite(low) and math.isfinite(high)):
        ends = (each if math.isfinite(each) else None for each in bounds)
        return Weight(vector=vector, low=next(ends), high=next(ends), estimate=None)
    estimate, decimals = _shortest(low, high)
    if decimals > SHORT_DECIMALS:
        for digits in range(1, SHORT_DECIMALS + 1):
            short = round((low + high) / 2, digits)
            if low <= _bf16(short) <= high:
                return Weight(vector=vector, low=low, high=high, estimate=_bf16(short), bf16_of=short)
    return Weight(vector=vector, low=low, high=high, estimate=estimate)


def common_weights(tensors: Iterable[Sequence[Weight]]) -> tuple[Weight, ...]:
    """Return the weight of each vector that explains all of its tensors; vectors without one are left out."""
    ends: dict[str, tuple[float, float]] = {}
    for weight in (each for weights in tensors for each in weights):
        low = -math.inf if weight.low is None else weight.low
        high = math.inf if weight.high is None else weight.high
        before = ends.get(weight.vector, (-math.inf, math.inf))
        ends[weight.vector] = (max(before[0], low), min(before[1], high))
    return tuple(describe_weight(vector, bounds) for vector, bounds in ends.items() if bounds[0] <= bounds[1])


def _shortest(low: float, high: float) -> tuple[float, int]:
    middle = (low + high) / 2
    for decimals in range(DECIMALS + 1):
        short = round(middle, decimals)
        if low <= short <= high:
            return short + 0.0, decimals  # never -0.0
    return middle, DECIMALS + 1


def _bf16(value: float) -> float:
    """Round to bf16, to nearest, ties to even."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    rounded: float = struct.unpack("<f", struct.pack("<I", bits + 0x7FFF + (bits >> 16 & 1) & 0xFFFF0000))[0]
    return rounded
