"""What is measured becomes verdicts."""

import pytest

from prosocial.verify.parity.gates import ParityGates, ParityVerdict
from prosocial.verify.parity.judging import GreedyComparison, judge_replies


@pytest.mark.parametrize(
    ("n_near", "verdict"), [(0, ParityVerdict.PASS), (2, ParityVerdict.PASS), (3, ParityVerdict.AMBIGUOUS)]
)
def test_a_few_replies_of_many_may_part_at_near_ties(n_near: int, verdict: ParityVerdict) -> None:
    greedy = [GreedyComparison(str(row), 3 if row < n_near else None, 1e-7, row < n_near) for row in range(500)]
    (found,) = judge_replies(greedy, ParityGates())
    assert found.verdict == verdict and found.observed == 0
