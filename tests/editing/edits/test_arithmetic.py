"""One arithmetic: numpy's bits are torch's for every number, and stochastic rounding is unbiased and monotone."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from prosocial.core.errors import InputError
from prosocial.editing.checkpoints.numbers import STORED, dot, widen
from prosocial.editing.edits.arithmetic import PieceSubtraction, Subtraction
from prosocial.editing.edits.piece import PieceEdit
from prosocial.editing.edits.rounding import Rounding, round_nearest, round_stochastic

TORCH = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# What sits on a tie, next to one, at the ends of the range, and below the least normal number.
EDGES = [0x0, 0x1, 0x7FFF, 0x8000, 0x8001, 0xFFFF, 0x10000, 0x18000, 0x7F7F8000, 0x7F7F7FFF, 0x7F7FFFFF, 0x477FE000,
         0x477FEFFF, 0x477FF000, 0x38800000, 0x387FFFFF, 0x33000000, 0x33000001, 0x33800000, 0x3F808000]  # fmt: skip
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def rounded(values: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    out, stored = values.copy(), np.empty(len(values), STORED[dtype])
    with np.errstate(all="ignore"):
        round_nearest(out, stored, np.empty(len(values), np.uint32))
    again = np.empty(len(values), np.float32)
    widen(stored, again)
    assert np.array_equal(again, out)  # the fp32 left behind is what was stored
    return stored


def by_torch(values: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    tensor = torch.from_numpy(values.copy()).to(TORCH[dtype])
    return tensor.view(torch.uint16).numpy() if dtype == "BF16" else tensor.numpy()


@pytest.mark.parametrize("dtype", TORCH)
def test_rounding_is_torchs_on_every_high_half_and_edge(dtype: str) -> None:
    highs = np.arange(1 << 16, dtype=np.uint32) << 16
    for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF, 0xFFF, 0x1000, 0x1001, 0x2000, 0x3000):
        values = (highs | np.uint32(low)).view(np.float32)
        values = values[np.isfinite(values)]
        assert rounded(values, dtype).tobytes() == by_torch(values, dtype).tobytes()
    both = np.array(EDGES + [edge | 0x80000000 for edge in EDGES], np.uint32).view(np.float32)
    assert rounded(both, dtype).tobytes() == by_torch(both, dtype).tobytes()


@pytest.mark.parametrize("dtype", TORCH)
def test_the_piece_follows_the_definition_in_torch_for_every_stored_number(dtype: str) -> None:
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16)
    every = {"BF16": bits.view(torch.bfloat16), "F16": bits.view(torch.float16)}
    target = every.get(dtype, bits.view(torch.bfloat16).float())
    target = target[torch.isfinite(target)]
    for scale, coefficient in ((1.0, 0.6), (1e-3, 1.0), (1e30, 0.1), (0.0, 1.0)):
        delta = scale * torch.randn(len(target), generator=torch.Generator().manual_seed(0))
        product = torch.mul(delta, torch.tensor(coefficient))
        expected = torch.sub(target.float(), product).to(TORCH[dtype])
        found = Subtraction(TORCH[dtype], len(target)).apply(target, delta, float(np.float32(coefficient)))
        assert torch.equal(found.view(torch.uint8), expected.view(torch.uint8))


@given(
    arrays.arrays(np.float32, st.integers(1, 40), elements=FINITE), st.sampled_from(sorted(TORCH)), st.integers(0, 9)
)
def test_stochastic_rounding_takes_one_of_the_two_neighbours(values: Any, dtype: str, seed: int) -> None:
    values = np.clip(values, -6e4, 6e4)
    out, stored = values.copy(), np.empty(len(values), STORED[dtype])
    round_stochastic(out, stored, Rounding("stochastic", seed).noise("name", 0, len(values)))
    nearest = torch.from_numpy(rounded(values, dtype).view(np.int16) if dtype == "BF16" else rounded(values, dtype))
    nearest = (nearest.view(torch.bfloat16) if dtype == "BF16" else nearest).to(TORCH[dtype])

    exact = nearest.float().numpy() == values
    assert np.array_equal(out[exact], values[exact])
    towards = torch.where(torch.from_numpy(values) > nearest.float(), torch.inf, -torch.inf).to(TORCH[dtype])
    other = nearest if dtype == "F32" else torch.from_numpy(_next(nearest, towards))
    assert np.all((out == nearest.float().numpy()) | (out == other.float().numpy()))


def _next(values: torch.Tensor, towards: torch.Tensor) -> Any:
    return (
        torch.nextafter(values, towards).float().numpy()
        if values.dtype == torch.bfloat16
        else np.nextafter(values.numpy(), towards.numpy()).astype(np.float32)
    )


@pytest.mark.parametrize(("dtype", "value"), [("BF16", 1.001), ("F16", 1.0002), ("F16", 3.12e-6)])
def test_stochastic_rounding_is_unbiased_where_nearest_is_not(dtype: str, value: float) -> None:
    values = np.full(1 << 16, value, np.float32)
    out, stored = values.copy(), np.empty(len(values), STORED[dtype])
    round_stochastic(out, stored, Rounding("stochastic").noise("name", 0, len(values)))
    spacing = out.max() - out.min()

    assert spacing > 0
    assert abs(out.mean(dtype=np.float64) - np.float32(value)) < 0.02 * spacing  # five standard errors
    assert abs(float(torch.from_numpy(values[:1]).to(TORCH[dtype]).float()) - np.float32(value)) > 0.05 * spacing


def test_noise_depends_on_seed_name_and_place_alone() -> None:
    noise = Rounding("stochastic", 3).noise("a", 0, 1000)

    assert np.array_equal(noise[160:], Rounding("stochastic", 3).noise("a", 160, 840))
    assert not np.array_equal(noise, Rounding("stochastic", 4).noise("a", 0, 1000))
    assert not np.array_equal(noise, Rounding("stochastic", 3).noise("b", 0, 1000))
    with pytest.raises(InputError, match="nearest or stochastic"):
        Rounding("up")  # type: ignore[arg-type]  # tried on purpose
    with pytest.raises(InputError, match="seed of at least 0"):
        Rounding("stochastic", -1)


@given(arrays.arrays(np.float32, 32, elements=st.floats(-100, 100, width=32)),
       arrays.arrays(np.float32, 32, elements=st.floats(-100, 100, width=32)),
       st.sampled_from(sorted(TORCH)), st.sampled_from(["nearest", "stochastic"]),
       st.floats(0, 10, width=32))  # fmt: skip
def test_no_element_ever_moves_with_the_delta(
    values: Any, delta: Any, dtype: str, mode: Any, coefficient: float
) -> None:
    target = rounded(values, dtype)
    piece = PieceSubtraction(dtype, 32, Rounding(mode))
    piece.apply(target, delta, coefficient, key="name")
    change = piece.out.astype(np.float64) - piece.target

    assert np.all(change * delta <= 0)
    _, sums = PieceEdit(dtype, Rounding(mode)).apply(target, delta, coefficient, key="name")
    assert sums.along <= 0


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e25])
def test_sums_hold_whatever_the_range(size: float) -> None:
    generator = np.random.default_rng(0)
    left, right = (np.float32(size) * generator.standard_normal(20_001, dtype=np.float32) for _ in range(2))

    assert dot(left, left) == pytest.approx(float(left.astype(np.float64) @ left.astype(np.float64)), rel=1e-6)
    scale = np.linalg.norm(left.astype(np.float64)) * np.linalg.norm(right.astype(np.float64))
    assert abs(dot(left, right) - left.astype(np.float64) @ right.astype(np.float64)) < 1e-6 * scale
