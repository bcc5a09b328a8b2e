"""The plausible set holds the highest logits, of which none is left out, highest first."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from prosocial.steering.plausible import plausible


@given(st.integers(1, 30), st.integers(0, 100))
def test_no_token_outside_is_liked_better_than_one_inside(k: int, seed: int) -> None:
    logits = torch.randint(0, 9, (2, 3, 12), generator=torch.Generator().manual_seed(seed)).float()  # with ties
    value, candidates = plausible(logits, k)

    assert value.shape == candidates.shape == (2, 3, min(k, 12))
    assert torch.equal(value, logits.gather(-1, candidates))
    assert torch.equal(value, logits.sort(-1, descending=True).values[..., :k])
    assert all(len(set(row.tolist())) == len(row) for row in candidates.flatten(0, 1))
