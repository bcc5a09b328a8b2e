"""A threshold for a stated leak rate, by fixed-sequence testing.

For each candidate the hypothesis "it leaks more than `max_leak`" is tested at level 1 - confidence: rejected where the
one-sided Clopper-Pearson bound on the leak rate is at most `max_leak`. Candidates are tested from the strictest, and
testing stops at the first that is not rejected. This needs no correction for the number of candidates: a choice is
wrong only if the first candidate that leaks too much passes its single test. Source: Learn then Test, arXiv 2110.01052
(fixed sequence testing); the leak rate need not grow with the threshold. The bound holds for prompts drawn
independently from the distribution of the calibration prompts, and for no others.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from prosocial.core.errors import InputError

from ..statistics.distributions import incomplete_beta
from ..statistics.proportions import clopper_pearson


@dataclass(frozen=True)
class LeakTest:
    """The test of one threshold.

    Attributes:
        threshold: the candidate.
        n_leaks: harmful replies.
        n: replies judged; fewer than all prompts if the test failed before the end.
        upper: one-sided upper bound on the leak rate.
        holds: whether the bound is at most the requested rate.
        n_unjudged: how many of the leaks are replies that could not be judged.
    """

    threshold: float
    n_leaks: int
    n: int
    upper: float
    holds: bool
    n_unjudged: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return dict(vars(self))


def least_prompts(*, max_leak: float, confidence: float) -> int:
    """Return how many prompts without any leak it takes to show a leak rate of at most `max_leak`.

    Examples:
        >>> least_prompts(max_leak=0.005, confidence=0.95)
        598
    """
    return 1 if max_leak >= 1.0 else math.ceil(math.log(1 - confidence) / math.log1p(-max_leak))


def most_leaks(n: int, *, max_leak: float, confidence: float) -> int:
    """Return the most leaks among n replies that still show a leak rate of at most `max_leak`; -1: none do.

    Examples:
        >>> [most_leaks(n, max_leak=0.005, confidence=0.95) for n in (597, 598, 1000)]
        [-1, 0, 1]
    """

    def fails(k: int) -> bool:  # the Clopper-Pearson bound, a quantile of Beta(k + 1, n - k), is above max_leak
        return k == n or incomplete_beta(max_leak, k + 1, n - k) < confidence

    return n if max_leak >= 1.0 else bisect_left(range(n + 1), True, key=fails) - 1


def choose_threshold(
    candidates: Sequence[float],
    count_leaks: Callable[[float, int], tuple[int, int, int]],
    *,
    n_prompts: int,
    max_leak: float,
    confidence: float,
) -> tuple[float, list[LeakTest]]:
    """Return the largest threshold that passes its test, and every test that was made.

    Args:
        candidates: thresholds in any order, chosen without looking at the prompts.
        count_leaks: takes a threshold and the most leaks that it may have, and returns (leaks, replies, leaks that are
            replies which could not be judged); it may stop once there are more leaks.
        n_prompts: how many prompts it answers unless it stops.
        max_leak: the highest leak rate. confidence: of the bound.

    Raises:
        InputError: the prompts are too few to show it, or the strictest candidate does not hold it.

    Examples:
        >>> leaks = {0.3: (0, 1000, 0), 0.5: (1, 1000, 0), 0.9: (12, 1000, 3)}
        >>> chosen, tests = choose_threshold(
        ...     [0.9, 0.3, 0.5], lambda tau, most: leaks[tau], n_prompts=1000, max_leak=0.005, confidence=0.95
        ... )
        >>> chosen, [(test.threshold, test.holds) for test in tests]
        (0.5, [(0.3, True), (0.5, True), (0.9, False)])
    """
    require_prompts(n_prompts, max_leak=max_leak, confidence=confidence)
    most = most_leaks(n_prompts, max_leak=max_leak, confidence=confidence)
    tests: list[LeakTest] = []
    for threshold in sorted(set(candidates)):
        n_leaks, n, n_unjudged = count_leaks(threshold, most)
        upper = clopper_pearson(n_leaks, n, confidence=confidence, side="upper").high
        tests.append(LeakTest(threshold, n_leaks, n, upper, n == n_prompts and n_leaks <= most, n_unjudged))
        if not tests[-1].holds:
            break
    passed = [test.threshold for test in tests if test.holds]
    if not passed:
        raise InputError(
            f"the gate should leak at most {max_leak:.3g} of harmful prompts ({confidence:.0%} confidence) at the "
            f"strictest candidate, found {tests[0].n_leaks} leaks of {tests[0].n} at threshold {tests[0].threshold:g}"
            f"{unjudged_leaks(tests[0].n_unjudged)} (at most {most} of {n_prompts} may): train the gate more, give a "
            "stricter candidate, or raise max_leak"
        )
    return passed[-1], tests


def unjudged_leaks(n: int) -> str:
    """Return the part of a line that says how many replies counted as leaks because they could not be judged."""
    return f", {n} of them replies that could not be judged" if n else ""


def require_prompts(n_prompts: int, *, max_leak: float, confidence: float) -> None:
    """Raise InputError where there are too few harmful prompts to show the leak rate, even without any leak."""
    if most_leaks(n_prompts, max_leak=max_leak, confidence=confidence) < 0:
        raise InputError(too_few_prompts(n_prompts, max_leak=max_leak, confidence=confidence))


def too_few_prompts(n_prompts: int, *, max_leak: float, confidence: float) -> str:
    """Return the line that says how many harmful calibration prompts are needed."""
    least = least_prompts(max_leak=max_leak, confidence=confidence)
    return (
        f"calibration should hold at least {least} harmful prompts to "
        f"show a leak rate of at most {max_leak:.3g} at {confidence:.0%} confidence, found {n_prompts}: add prompts or "
        "raise calibration.max_leak"
    )
