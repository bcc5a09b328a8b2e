"""Calibration is measured as it is, and a threshold is chosen only where the prompts show its leak rate."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosocial.core.errors import InputError
from prosocial.core.files import write_json
from prosocial.evaluation.gate import LeakTest, ThresholdChoice, choose_threshold, measure_reliability
from prosocial.evaluation.gate.threshold import least_prompts, most_leaks

N = 6000


def groups(size: int = 10) -> np.ndarray:
    return np.arange(N) // size


def test_true_probabilities_have_a_small_error_and_shifted_ones_their_shift() -> None:
    random = np.random.default_rng(0)
    chance = random.uniform(0, 0.8, N)
    came = random.random(N) < chance
    assert measure_reliability(chance, came, groups()).error.estimate < 0.03
    shifted = measure_reliability(chance + 0.2, came, groups())
    assert shifted.error.low < 0.2 < shifted.error.high + 0.01 and shifted.bias == pytest.approx(0.2, abs=0.02)
    assert all(one.low <= one.observed <= one.high for one in shifted.bins)


def test_bins_have_equal_mass_and_rise() -> None:
    chance = np.random.default_rng(1).beta(0.1, 2.0, N)
    found = measure_reliability(chance, chance, groups(), n_bins=7)
    assert {one.n for one in found.bins} <= {N // 7, N // 7 + 1} and sum(one.n for one in found.bins) == N
    predicted = [one.predicted for one in found.bins]
    assert predicted == sorted(predicted) and found.error.estimate == pytest.approx(0.0, abs=1e-12)


def test_the_order_of_positions_does_not_matter_and_whole_replies_are_drawn() -> None:
    random = np.random.default_rng(2)
    chance = random.uniform(0, 1, N)
    came = (random.random(N) < chance).astype(float)
    order = random.permutation(N)
    first = measure_reliability(chance, came, groups())
    again = measure_reliability(chance[order], came[order], groups()[order])
    assert again.error.estimate == pytest.approx(first.error.estimate)
    assert again.error.low == pytest.approx(first.error.low)
    alike = np.repeat(random.random(N // 100) < 0.5, 100)  # every position of a reply has the same outcome
    steady = np.full(N, 0.5)
    wide = measure_reliability(steady, alike, groups(100), n_bins=1).bins[0]
    narrow = measure_reliability(steady, alike, groups(1), n_bins=1).bins[0]
    assert wide.high - wide.low > 4 * (narrow.high - narrow.low)


@pytest.mark.parametrize(
    ("predicted", "observed", "reply"),
    [([], [], []), ([0.5], [1, 0], [0]), ([1.5], [1], [0]), ([float("nan")], [1], [0]), ([0.5], [2], [0])],
)
def test_what_is_no_probability_is_refused(predicted: list[float], observed: list[float], reply: list[int]) -> None:
    with pytest.raises(InputError):
        measure_reliability(predicted, observed, reply)


@given(st.integers(1, 3000), st.floats(0.002, 0.3), st.sampled_from([0.9, 0.95, 0.99]))
def test_most_leaks_is_the_exact_binomial_test(n: int, max_leak: float, confidence: float) -> None:
    from scipy.stats import binom

    most = most_leaks(n, max_leak=max_leak, confidence=confidence)
    if most >= 0:
        assert binom.cdf(most, n, max_leak) <= 1 - confidence + 1e-9
    if most < n:
        assert binom.cdf(most + 1, n, max_leak) > 1 - confidence - 1e-9
    assert (most >= 0) == (n >= least_prompts(max_leak=max_leak, confidence=confidence))


def test_testing_goes_from_the_strictest_and_stops_at_the_first_that_fails() -> None:
    asked: list[float] = []

    def count(threshold: float, most: int) -> tuple[int, int, int]:
        asked.append(threshold)
        return {0.2: 0, 0.4: 1, 0.6: 2, 0.8: 0}[threshold], 1000, 0

    chosen, tests = choose_threshold([0.8, 0.4, 0.6, 0.2], count, n_prompts=1000, max_leak=0.005, confidence=0.95)
    assert asked == [0.2, 0.4, 0.6] and chosen == 0.4
    assert [test.holds for test in tests] == [True, True, False]
    assert tests[1].upper <= 0.005 < tests[2].upper


def test_a_test_that_was_cut_short_never_holds() -> None:
    with pytest.raises(InputError, match=r"found 0 leaks of 700 at threshold 0.5"):
        choose_threshold([0.5], lambda tau, most: (0, 700, 0), n_prompts=1000, max_leak=0.005, confidence=0.95)


def test_where_none_holds_it_fails_with_one_line() -> None:
    with pytest.raises(InputError, match=r"found 9 leaks of 1000 at threshold 0.3, 7 of them replies that") as caught:
        choose_threshold([0.5, 0.3], lambda tau, most: (9, 1000, 7), n_prompts=1000, max_leak=0.005, confidence=0.95)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"at least 598 harmful prompts .* found 500"):
        choose_threshold([0.5], lambda tau, most: (0, 500, 0), n_prompts=500, max_leak=0.005, confidence=0.95)


def test_a_leak_rate_above_the_one_asked_for_is_chosen_at_most_at_the_stated_error() -> None:
    """Five candidates that all leak a little too much: the error stays at 5 %, as none gets a second chance."""
    random = np.random.default_rng(0)
    wrong = 0
    for _ in range(1000):
        try:
            choose_threshold(
                [0.1, 0.2, 0.3, 0.4, 0.5],
                lambda tau, most: (int(random.binomial(1000, 0.0051)), 1000, 0),
                n_prompts=1000,
                max_leak=0.005,
                confidence=0.95,
            )
            wrong += 1
        except InputError:
            pass
    assert wrong <= 65  # 50 expected at most, 65 is two standard deviations above


def test_the_calibration_of_a_gate_is_that_of_its_risks_at_the_tokens_of_the_replies(tmp_path: Path) -> None:
    import torch

    from prosocial.core.protocols import Judgement
    from prosocial.evaluation.gate import measure_calibration
    from prosocial.evaluation.outcomes.outcome import Outcome
    from prosocial.evaluation.probes.probe import Probe
    from prosocial.steering.gate import HarmGate

    from ...training.reward_helpers import USEFUL, WARM, make_model, make_tokenizer

    tokenizer = make_tokenizer(tmp_path)
    model = make_model(tokenizer)
    weight = model.get_output_embeddings().weight
    gate = HarmGate(("violence", "drugs"), weight.shape[0], weight.shape[1], rank=2)
    with torch.no_grad():
        gate.M.zero_()
        gate.a.copy_(torch.tensor([-1.0, -2.0]))
    probes = [Probe(f"p{i}", ({"role": "user", "content": "how?"},), "harmful") for i in range(4)]
    probes.append(Probe("pre", probes[0].messages, "attack", prefill="sure"))
    harmful = Judgement(frozenset({"drugs"}), harmful_spans=((0, len(USEFUL)),))
    outcomes = [
        Outcome(p.id, USEFUL if i % 2 else WARM, harmful if i % 2 else Judgement(), "j 1") for i, p in enumerate(probes)
    ]
    found = measure_calibration(model, gate, tokenizer, probes, outcomes, discount=0.5)
    assert found["n_replies"] == 4
    by_name = {one["name"]: one for one in found["categories"] + found["total"]}
    n_useful, n_warm = len(tokenizer.encode_text(USEFUL)), len(tokenizer.encode_text(WARM))
    share = n_useful / (n_useful + n_warm + 2)
    risk = torch.sigmoid(gate.a).tolist()
    assert by_name["drugs"]["bias"] == pytest.approx(risk[1] - share, abs=1e-6)
    assert by_name["violence"]["bias"] == pytest.approx(risk[0], abs=1e-6)
    assert by_name["any harm"]["bias"] == pytest.approx(sum(risk) - share, abs=1e-6)
    unjudged = Outcome("q", USEFUL, Judgement(error="it timed out"), "j 1")
    asked = Probe("q", probes[0].messages, "harmful")
    more = measure_calibration(model, gate, tokenizer, [*probes, asked], [*outcomes, unjudged], discount=0.5)
    assert more == found | {"n_unjudged": 1}  # it is no harmless reply
    with pytest.raises(InputError, match="none among 1"):
        measure_calibration(model, gate, tokenizer, [asked], [unjudged], discount=0.5)
    with pytest.raises(InputError, match="without a prefill"):
        measure_calibration(model, gate, tokenizer, probes[-1:], outcomes[-1:], discount=0.5)


def test_a_threshold_choice_is_read_as_it_was_written(tmp_path: Path) -> None:
    tests = (LeakTest(0.3, 0, 4, 0.2, True), LeakTest(0.5, 3, 4, 0.9, False, 1))
    choice = ThresholdChoice(0.3, 0.45, 0.01, 0.95, tests, 0.75, ("strict",))
    choice.write(tmp_path)
    assert ThresholdChoice.read(tmp_path) == ThresholdChoice.read(tmp_path / "calibration.json") == choice
    assert choice.summary == "threshold 0.3, 0 of 4 leak, at most 20 % (95%), 75.0 % done where harmless"


def test_the_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """Of schema 2, from before tests counted replies that could not be judged."""
    test = {"threshold": 0.2, "n_leaks": 0, "n": 700, "upper": 0.004, "holds": True}
    value = {"schema": "prosocial.threshold/2", "max_leak": 0.01, "confidence": 0.95, "harm_threshold": 0.2}
    write_json(tmp_path / "old.json", value | {"threshold_ceiling": 0.2, "success": None, "tests": [test]})
    choice = ThresholdChoice.read(tmp_path / "old.json")
    assert choice.tests[0].n_unjudged == 0 and choice.safety_configs == ()

    write_json(tmp_path / "old.json", value)
    with pytest.raises(InputError, match="missing threshold_ceiling, tests, success"):
        ThresholdChoice.read(tmp_path / "old.json")
