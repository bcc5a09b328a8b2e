"""Rounding of fp32 to the dtype of a checkpoint: to nearest even, or stochastic with a seed (torch-free).

Stochastic rounding chooses one of the two neighbours at random; the closer a neighbour, the likelier it is. Small
changes are then kept on average, where rounding to nearest would discard them. The noise comes from the counter-based
generator Philox: it depends on seed, tensor name and position in the tensor, not on threads or pieces (Salmon et al.
2011, Parallel random numbers: as easy as 1, 2, 3).
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from prosocial.core.errors import InputError

DRAWS_PER_COUNT = 16  # Philox gives four 64-bit words for each counter value; each word gives four 16-bit draws
HALF_BELOW, LAST_KEPT, N_DROPPED, KEPT = np.uint32(0x7FFF), np.uint32(1), np.uint32(16), np.uint32(0xFFFF0000)
F16_FRACTION_BITS, F16_LEAST_EXPONENT = 10, -14


@dataclass(frozen=True)
class Rounding:
    """Rounding mode of an edit.

    Attributes:
        mode: `nearest` (ties to even) or `stochastic`.
        seed: seed of stochastic rounding, at least 0.

    Raises:
        InputError: the mode is unknown, or the seed is negative.

    Examples:
        >>> Rounding("stochastic", seed=7).stochastic
        True
    """

    mode: Literal["nearest", "stochastic"] = "nearest"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode not in ("nearest", "stochastic") or self.seed < 0:
            raise InputError(
                f"rounding should be nearest or stochastic, with a seed of at least 0, found {self.mode!r} with seed "
                f"{self.seed}"
            )

    @property
    def stochastic(self) -> bool:
        """Whether the mode is stochastic."""
        return self.mode == "stochastic"

    def noise(self, name: str, at: int, n_elements: int) -> NDArray[np.uint16]:
        """Return n uniform 16-bit integers, the noise for the n elements of a tensor from index `at`.

        Args:
            name: name of the tensor.
            at: index of the first element, a multiple of 16.
            n_elements: number of elements.
        """
        if at % DRAWS_PER_COUNT:
            raise ValueError(f"a piece should start at a multiple of {DRAWS_PER_COUNT}, found {at}")
        key = int.from_bytes(hashlib.sha256(f"{self.seed}:{name}".encode()).digest()[:16], "little")
        words = np.random.Philox(key=key, counter=at // DRAWS_PER_COUNT).random_raw(-(-n_elements // 4))
        return words.astype("<u8", copy=False).view(np.uint16)[:n_elements]

    def to_json(self) -> dict[str, str | int]:
        """Return the rounding as it is written into edit records."""
        if not self.stochastic:
            return {"rounding": "nearest, ties to even, once, to the target's dtype"}
        return {
            "rounding": "stochastic, once, to the target's dtype: Philox 4x64 by name and place, 16 bits an element",
            "rounding_seed": self.seed,
        }


NEAREST = Rounding()


def round_nearest(out: NDArray[np.float32], stored: NDArray[Any], scratch: NDArray[np.uint32]) -> None:
    """Round `out` to nearest even in the dtype of `stored`; afterwards both arrays hold the rounded values.

    Only for finite numbers: in BF16 a NaN may become infinite or finite.

    Args:
        out: [n] fp32, input and output.
        stored: [n], output; uint16 stands for BF16.
        scratch: [n], overwritten.
    """
    if stored.dtype == np.float32:
        np.copyto(stored, out)
    elif stored.dtype == np.float16:
        np.copyto(stored, out, casting="same_kind")
        np.copyto(out, stored)
    else:
        bits = out.view(np.uint32)
        np.right_shift(bits, N_DROPPED, out=scratch)
        np.bitwise_and(scratch, LAST_KEPT, out=scratch)
        np.add(scratch, HALF_BELOW, out=scratch)
        np.add(bits, scratch, out=bits)
        _truncate(bits, stored, scratch)


def round_stochastic(out: NDArray[np.float32], stored: NDArray[Any], noise: NDArray[np.uint16]) -> None:
    """Round `out` stochastically to the dtype of `stored`; afterwards both arrays hold the rounded values.

    Numbers that the dtype represents exactly do not change.

    Args:
        out: [n] fp32, input and output.
        stored: [n], output; uint16 stands for BF16.
        noise: [n] uniform 16-bit integers.
    """
    if stored.dtype == np.float32:
        np.copyto(stored, out)
    elif stored.dtype == np.float16:
        np.copyto(stored, _f16_neighbour(out, noise), casting="same_kind")
        np.copyto(out, stored)
    else:
        bits = out.view(np.uint32)
        np.add(bits, noise, out=bits)
        _truncate(bits, stored, np.empty_like(bits))


def _truncate(bits: NDArray[np.uint32], stored: NDArray[Any], scratch: NDArray[np.uint32]) -> None:
    np.right_shift(bits, N_DROPPED, out=scratch)
    np.copyto(stored, scratch, casting="same_kind")
    np.bitwise_and(bits, KEPT, out=bits)


def _f16_neighbour(values: NDArray[np.float32], noise: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return values rounded stochastically to F16, as fp32; all products are with powers of two and hence exact."""
    _, exponents = np.frexp(values)
    spacing = np.maximum(exponents - 1, F16_LEAST_EXPONENT) - F16_FRACTION_BITS
    steps = np.ldexp(values, -spacing)
    below = np.floor(steps)
    up = noise.astype(np.float32) < (steps - below) * np.float32(1 << 16)
    neighbours: NDArray[np.float32] = np.ldexp(below + up.astype(np.float32), spacing)
    return neighbours
