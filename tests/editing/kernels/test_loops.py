"""The loops in C give numpy's bits, and its sums to about seven digits."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from prosocial.editing.edits.piece import PieceEdit
from prosocial.editing.kernels import portable
from prosocial.editing.kernels.loops import loops, native

pytestmark = pytest.mark.skipif(native is None, reason="no compiler when the package was installed")

LENGTHS = [0, 1, 15, 16, 17, 40, 4095, 4096, 4097, 9000]
BF16 = arrays.arrays(np.uint16, 40, elements=st.integers(0, 0xFFFF))
F32 = arrays.arrays(np.float32, 40, elements=st.floats(width=32))
FINITE = arrays.arrays(np.float32, 40, elements=st.floats(allow_nan=False, allow_infinity=False, width=32))


def close(ours: Any, theirs: Any, *, size: float = 0.0) -> bool:
    """Whether two sums agree; `size` is how large their terms are where they may cancel."""
    if not (np.isfinite(ours) and np.isfinite(theirs)):
        return not (np.isfinite(ours) or np.isfinite(theirs))
    return bool(abs(ours - theirs) <= 2e-5 * max(abs(theirs), size))


def some(n: int, seed: int = 0, scale: float = 1.0) -> Any:
    """Numbers of which a third are zero."""
    generator = np.random.default_rng(seed)
    numbers = scale * generator.standard_normal(n)
    return np.where(generator.random(n) < 1 / 3, 0.0, numbers).astype(np.float32)


def bf16(numbers: Any) -> Any:
    return (numbers.view(np.uint32) >> 16).astype(np.uint16)


def both_edits(dtype: str, target: Any, delta: Any, coefficient: float) -> None:
    (out, sums), (expected, expected_sums) = (
        PieceEdit(dtype, portable=which).apply(target, delta, coefficient) for which in (False, True)
    )
    finite = np.isfinite(expected_sums.change_square + expected_sums.target_square + expected_sums.delta_square)

    assert np.isfinite(sums.change_square + sums.target_square + sums.delta_square) == finite
    if finite:
        assert np.array_equal(out.view(np.uint8), expected.view(np.uint8))
        assert (sums.n_moving, sums.n_changed) == (expected_sums.n_moving, expected_sums.n_changed)
        assert sums.along <= 0
        for ours, theirs in zip(sums[2:6], expected_sums[2:6], strict=True):
            assert close(ours, theirs)
        assert close(sums.error_square, expected_sums.error_square, size=1e-9 * sums.delta_square * coefficient**2)


@given(BF16, F32, st.floats(0, 8, width=32))
def test_edits_of_bf16_are_numpys(target: Any, delta: Any, coefficient: float) -> None:
    both_edits("BF16", target, delta, coefficient)


@given(F32, F32, st.floats(0, 8, width=32))
def test_edits_of_f32_are_numpys(target: Any, delta: Any, coefficient: float) -> None:
    both_edits("F32", target, delta, coefficient)


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e20])
def test_edits_of_any_length_and_range(n: int, scale: float) -> None:
    target, delta = some(n, 1, 10 * scale), some(n, 2, scale)

    both_edits("F32", target, delta, 0.75)
    both_edits("BF16", bf16(target), delta, 0.75)


@given(F32, F32)
def test_differences_are_numpys(left: Any, right: Any) -> None:
    for pair, is_bf16 in (((left, right), False), ((bf16(left), bf16(right)), True)):
        ours, theirs = np.empty(40, np.float32), np.empty(40, np.float32)
        found, expected = loops.difference(*pair, ours, is_bf16), portable.difference(*pair, theirs, is_bf16)

        assert np.array_equal(ours, theirs, equal_nan=True)
        assert np.array_equal(np.signbit(ours[~np.isnan(ours)]), np.signbit(theirs[~np.isnan(theirs)]))
        if np.isfinite(expected).all():
            size = (expected[0] * expected[2]) ** 0.5
            assert all(close(one, other, size=size) for one, other in zip(found, expected, strict=True))
        else:
            assert not np.isfinite(found).all()


@pytest.mark.parametrize("n", LENGTHS)
def test_entries_are_those_of_numpy_and_come_back(n: int) -> None:
    delta, at = some(n), 77
    found = []
    for by in (loops, portable):
        places, values = np.empty(n, np.int32), np.empty(n, np.float32)
        n_entries = by.gather(delta, at, places, values)
        found.append((places[:n_entries], values[:n_entries]))
        back = np.full(n, 9.0, np.float32)
        assert by.scatter(*found[-1], at, back) == n_entries
        assert np.array_equal(back, delta)

    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(*found, strict=True))


@pytest.mark.parametrize("places", [[5, 5], [6, 5], [4, 6], [-1, 5]])
@pytest.mark.parametrize("by", [loops, portable])
def test_places_that_do_not_rise_are_told(by: Any, places: list[int]) -> None:
    out = np.empty(8, np.float32)

    assert by.scatter(np.array(places, np.int32), np.ones(2, np.float32), 5, out) == -1
    assert by.scatter(np.array([5, 12, 13], np.int32), np.ones(3, np.float32), 5, out) == 2


@given(FINITE, st.integers(0, 39), st.integers(0, 5))
def test_the_same_elements_stay(delta: Any, index: int, n_ties: int) -> None:
    threshold = int(delta.view(np.uint32)[index] & 0x7FFFFFFF)
    ours, theirs = np.empty(40, np.float32), np.empty(40, np.float32)

    assert loops.keep(delta, threshold, n_ties, ours) == portable.keep(delta, threshold, n_ties, theirs)
    assert np.array_equal(ours.view(np.uint32), theirs.view(np.uint32))


@given(FINITE, st.integers(0, 39), st.integers(1, 200))
def test_the_same_magnitudes_are_counted(delta: Any, index: int, n_counts: int) -> None:
    low = max(0, int(delta.view(np.uint32)[index] & 0x7FFFFFFF) - n_counts // 2)
    ours, theirs = np.zeros(n_counts, np.uint32), np.zeros(n_counts, np.uint32)

    assert loops.count_window(delta, low, ours) == portable.count_window(delta, low, theirs)
    assert np.array_equal(ours, theirs)
    assert ours.sum() > 0


def test_buffers_that_do_not_fit_are_refused_and_nothing_is_written() -> None:
    four, three, out = np.ones(4, np.float32), np.ones(3, np.float32), np.zeros(4, np.float32)
    locked = np.zeros(4, np.float32)
    locked.flags.writeable = False

    for arguments in (
        (three, four, 1.0, out, False),
        (four, four, 1.0, out, True),
        (four, four.view(np.uint16), 1.0, out, False),
    ):
        with pytest.raises(ValueError, match="an array should have"):
            native.edit(*arguments)
    with pytest.raises((BufferError, ValueError)):
        native.edit(four, four, 1.0, locked, False)
    with pytest.raises((BufferError, ValueError)):
        native.keep(np.ones(8, np.float32)[::2], 0, 0, out)
    assert not out.any()
