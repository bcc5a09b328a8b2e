"""The plausible set holds the highest logits, of which none is left out, highest first."""

import doctest

import torch
from hypothesis import given
from hypothesis import strategies as st

from prosocial.core import appended_rows, batches, equal_lengths
from prosocial.steering import plausible


@given(st.integers(1, 30), st.integers(0, 100))
def test_no_token_outside_is_liked_better_than_one_inside(k: int, seed: int) -> None:
    logits = torch.randint(0, 9, (2, 3, 12), generator=torch.Generator().manual_seed(seed)).float()  # with ties
    value, candidates = plausible.plausible(logits, k)

    assert value.shape == candidates.shape == (2, 3, min(k, 12))
    assert torch.equal(value, logits.gather(-1, candidates))
    assert torch.equal(value, logits.sort(-1, descending=True).values[..., :k])
    assert all(len(set(row.tolist())) == len(row) for row in candidates.flatten(0, 1))


@given(st.integers(0, 40), st.floats(0, 0.9), st.integers(0, 1))
def test_what_is_held_out_are_the_last_rows_and_no_row_is_lost(n_rows: int, share: float, at_least: int) -> None:
    n_held_out = max(at_least, round(share * n_rows))
    train, held_out = batches.held_out_split(range(n_rows), share, at_least=at_least)

    assert [*train, *held_out] == list(range(n_rows))
    assert len(held_out) == min(n_held_out, n_rows)


def test_the_examples_run() -> None:
    for module in (appended_rows, batches, equal_lengths, plausible):
        found = doctest.testmod(module)
        assert found.attempted and not found.failed
