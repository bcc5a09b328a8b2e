"""Rows are held out of training at the end, and none is lost."""

from hypothesis import given
from hypothesis import strategies as st

from prosocial.core.batches import held_out_split


@given(st.integers(0, 40), st.floats(0, 0.9), st.integers(0, 1))
def test_what_is_held_out_are_the_last_rows_and_no_row_is_lost(n_rows: int, share: float, at_least: int) -> None:
    n_held_out = max(at_least, round(share * n_rows))
    train, held_out = held_out_split(range(n_rows), share, at_least=at_least)

    assert [*train, *held_out] == list(range(n_rows))
    assert len(held_out) == min(n_held_out, n_rows)
