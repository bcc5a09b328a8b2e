"""Batches of nearly equal length hold every row once, in an order of seed and epoch alone."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from prosocial.training.tuning.lengths import LengthGroups

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=60)


@given(LENGTHS, st.integers(1, 7), st.integers(0, 3), st.integers(0, 3))
def test_every_row_comes_once_and_again_in_the_same_order(lengths: list[int], size: int, seed: int, epoch: int) -> None:
    first, second = (LengthGroups(lengths, batch_size=size, seed=seed) for _ in range(2))
    list(first)
    for each in (first, second):
        each.set_epoch(epoch)
    assert list(first) == list(second)
    assert sorted(first) == list(range(len(first)))


@given(LENGTHS, st.integers(2, 7))
def test_the_lengths_of_two_batches_do_not_overlap(lengths: list[int], size: int) -> None:
    order = [lengths[row] for row in LengthGroups(lengths, batch_size=size, seed=0)]
    ranges = sorted((min(part), max(part)) for part in (order[at : at + size] for at in range(0, len(order), size)))
    assert all(one[1] <= other[0] for one, other in pairwise(ranges))


def test_epochs_differ() -> None:
    groups = LengthGroups(list(range(40)), batch_size=2, seed=0)
    first = list(groups)
    groups.set_epoch(1)
    assert list(groups) != first
