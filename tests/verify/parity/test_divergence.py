"""Two sides of one decision: what differs, and which of it rounding alone could have turned."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosocial.verify.parity.divergence import divergence
from prosocial.verify.parity.engines import Margins, StepOutputs
from prosocial.verify.parity.gates import ParityGates
from prosocial.verify.parity.measurement import Measurement

from ..table_engine import INF, TIES


def _outputs(
    logits: list[list[float]], safety: list[list[float]] | None = None, size: list[int] | None = None
) -> StepOutputs:
    values = np.array(logits, np.float32)
    margins = None if safety is None else partial(Margins, np.ones_like(values), np.array(safety, np.float32))
    sizes = np.isfinite(values).sum(axis=1) if size is None else np.array(size)
    return StepOutputs(values, np.zeros((len(values), 0), np.float32), sizes.astype(np.int64), margins)


@pytest.mark.parametrize(("margin", "near"), [(5e-4, True), (-5e-4, True), (0.2, False), (-0.2, False)])
def test_a_flip_is_excused_only_inside_the_band(margin: float, near: bool) -> None:
    inside, outside = [[1.0, 2.0]], [[1.0, -INF]]
    left, right = (inside, outside) if margin > 0 else (outside, inside)
    found = divergence(_outputs(left, [[0.4, margin]]), _outputs(right), ties=TIES)
    (flip,) = found.flips
    assert (flip.token, flip.near_tie) == (1, near)
    assert flip.safe_in == ("reference" if margin > 0 else "bundle")
    assert found.threshold_distance is not None and (found.threshold_distance[0] <= TIES.risk) == near


def test_without_margins_no_flip_is_excused() -> None:
    found = divergence(_outputs([[1.0, 2.0]]), _outputs([[1.0, -INF]]), ties=TIES)
    assert [flip.near_tie for flip in found.flips] == [False]


@pytest.mark.parametrize(
    ("plausibility", "safety", "near"), [(-1e-4, -0.3, False), (-1e-4, 0.3, True), (-1e-4, np.nan, True)]
)
def test_a_token_kept_out_twice_is_excused_only_if_both_were_close(
    plausibility: float, safety: float, near: bool
) -> None:
    left = replace(
        _outputs([[1.0, -INF]]),
        margins=lambda: Margins(np.array([[1, plausibility]], np.float32), np.array([[0.3, safety]], np.float32)),
    )
    (flip,) = divergence(left, _outputs([[1.0, 2.0]]), ties=TIES).flips
    assert flip.near_tie is near


@pytest.mark.parametrize(("margin", "near"), [(5e-4, True), (0.2, False)])
def test_end_tokens_that_open_because_nothing_else_is_safe_share_the_cause(margin: float, near: bool) -> None:
    """Token 0 ends a reply; the bundle found nothing safe where the reference found token 1, just or clearly."""
    left = _outputs([[-INF, 2.0]], [[INF, margin]], [1])
    right = _outputs([[1.0, -INF]], None, [0])
    assert [flip.near_tie for flip in divergence(left, right, ties=TIES).flips] == [near, near]


def test_end_tokens_that_differ_without_another_cause_are_not_excused() -> None:
    left = _outputs([[-INF, -INF]], [[INF, -0.3]], [1])
    (flip,) = divergence(left, _outputs([[1.0, -INF]], None, [0]), ties=TIES).flips
    assert (flip.token, flip.near_tie) == (0, False)


def test_no_common_token_is_infinite_divergence_and_fails() -> None:
    found = divergence(_outputs([[1.0, -INF]]), _outputs([[-INF, 1.0]]), ties=TIES)
    assert np.isinf(found.kl).all()
    assert not found.top1_agrees.any()


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=8), st.floats(-5, 5))
def test_kl_is_zero_under_a_common_shift_and_agrees_with_its_definition(values: list[float], shift: float) -> None:
    logits = np.array([values])
    same = divergence(_outputs(logits.tolist()), _outputs((logits + shift).tolist()), ties=TIES)
    assert same.kl[0] == pytest.approx(0, abs=1e-9)
    other = (0.5 * np.roll(logits, 1)).astype(np.float32).astype(np.float64)
    exact = logits.astype(np.float32).astype(np.float64)
    p, q = (np.exp(row - row.max()) / np.exp(row - row.max()).sum() for row in (exact[0], other[0]))
    found = divergence(_outputs(exact.tolist()), _outputs(other.tolist()), ties=TIES)
    assert found.kl[0] == pytest.approx(float((p * (np.log(p) - np.log(q))).sum()), rel=1e-6, abs=1e-9)


def test_kl_is_taken_on_the_tokens_that_both_let_in() -> None:
    found = divergence(_outputs([[1.0, 2.0, 9.0]]), _outputs([[1.0, 2.0, -INF]]), ties=TIES)
    assert found.kl[0] == pytest.approx(0)
    assert len(found.flips) == 1


def test_the_ten_most_likely_tokens_are_compared_with_near_ties_apart() -> None:
    """The reference's tenth and eleventh change places: by little, or by much."""
    logits = -np.arange(14.0)
    shares = {}
    for gap in (1e-3, 0.3):
        left, right = logits.copy(), logits.copy()
        left[9], left[10], right[9], right[10] = -9.0, -9.0 - gap, -9.0 - gap, -9.0
        gates = ParityGates().with_thresholds("test", max_logit_difference=1.0, kl_p99=1.0)
        found = divergence(_outputs([left.tolist()]), _outputs([right.tolist()]), ties=TIES)
        measured = Measurement("a", "b", {"p": found}, (), 0)
        shares[gap] = measured.judge(gates).to_json()["top10"]
    assert shares == {1e-3: {"raw": 0.9, "apart": 1.0}, 0.3: {"raw": 0.9, "apart": 0.9}}
