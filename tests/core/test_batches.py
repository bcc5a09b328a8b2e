"""Rows are held out of training at the end; batches fit their budget, and are halved where memory runs out."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prosocial.core.batches import free_bytes, halving, held_out_split, token_budget, token_budget_batches
from prosocial.core.errors import InputError


@given(st.integers(0, 40), st.floats(0, 0.9), st.integers(0, 1))
def test_what_is_held_out_are_the_last_rows_and_no_row_is_lost(n_rows: int, share: float, at_least: int) -> None:
    n_held_out = max(at_least, round(share * n_rows))
    train, held_out = held_out_split(range(n_rows), share, at_least=at_least)

    assert [*train, *held_out] == list(range(n_rows))
    assert len(held_out) == min(n_held_out, n_rows)


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 200))
def test_a_batch_is_within_the_budget_or_a_single_row(lengths: list[int], budget: int) -> None:
    batches = list(token_budget_batches(lengths, budget=budget))

    assert [row for batch in batches for row in batch] == sorted(range(len(lengths)), key=lambda row: lengths[row])
    assert all(len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget for batch in batches)
    for batch, following in pairwise(batches):  # no batch could have taken one row more
        assert (len(batch) + 1) * lengths[following[0]] > budget


def test_a_budget_is_what_the_free_memory_holds_and_not_more_than_helps() -> None:
    cpu = torch.device("cpu")

    assert token_budget(cpu, bytes_per_token=1) == 4096
    assert token_budget(cpu, bytes_per_token=1 << 62) == 1
    share = token_budget(cpu, bytes_per_token=1 << 24) * (1 << 24)
    assert 0 < share <= free_bytes(cpu)


@given(st.lists(st.integers(), min_size=1, max_size=20), st.integers(1, 20))
def test_a_batch_that_does_not_fit_is_halved_and_no_row_is_lost(rows: list[int], most: int) -> None:
    def run(part: list[int]) -> int:
        if len(part) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return len(part)

    parts = list(halving(run, rows))
    assert [row for part, _ in parts for row in part] == rows
    assert all(len(part) == result <= most for part, result in parts)


def test_an_allocation_that_really_fails_is_one_line_with_the_remedy() -> None:
    with pytest.raises(InputError, match="one row should fit into memory, it does not: give shorter rows"):
        list(halving(lambda rows: torch.empty(1 << 60), [0, 1], remedy="give shorter rows"))


def test_other_errors_pass_through() -> None:
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        list(halving(lambda rows: torch.ones(2, 3) @ torch.ones(2, 3), [0, 1]))
