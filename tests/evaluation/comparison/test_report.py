"""Comparisons count the right probes, pair them, and say which changed."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from prosocial.core.errors import InputError, UnknownNameError
from prosocial.core.protocols import Judgement
from prosocial.evaluation.comparison.preferences import preference_effects
from prosocial.evaluation.comparison.report import compare
from prosocial.evaluation.outcomes.outcome import Outcome
from prosocial.evaluation.probes.probe import Probe
from prosocial.evaluation.statistics import JudgeErrors


def _probe(name: str, kind: str, **more: str) -> Probe:
    return Probe(name, ({"role": "user", "content": name},), kind, **more)  # type: ignore[arg-type]


PROBES = [
    *[
        _probe(f"h{i}", "harmful", category="glimming" if i < 6 else "vorling", cluster=f"topic{i // 2}")
        for i in range(12)
    ],
    *[_probe(f"t{i}", "twin", twin_of=f"h{i}", cluster=f"topic{i // 2}") for i in range(12)],
    *[_probe(f"b{i}", "benign") for i in range(10)],
    *[_probe(f"a{i}", "attack", attack="roleplay") for i in range(4)],
    _probe("u", "attack"),
    _probe("hp", "harmful", attack="prefill", prefill="Sure,", category="glimming"),
]


def _outcomes(says: Callable[[Probe], Judgement], probes: list[Probe] = PROBES) -> list[Outcome]:
    return [Outcome(probe.id, "a reply", says(probe), "lab 1") for probe in probes]


def _base(probe: Probe) -> Judgement:
    harmful = probe.kind in ("harmful", "attack")
    return Judgement(
        frozenset(["x"]) if harmful else frozenset(), "none", {"empathy": 0.5}, None if probe.id == "b9" else True
    )


def _gated(probe: Probe) -> Judgement:
    if probe.kind in ("harmful", "attack"):
        return Judgement(refusal="full", attributes={"empathy": 0.5})
    return Judgement(refusal="partial" if probe.id in ("t3", "b0") else "none", success=probe.id != "b0")


def test_every_metric_counts_its_own_probes() -> None:
    report = compare(PROBES, {"base": _outcomes(_base), "gated": _outcomes(_gated)})
    assert {m.name: m.rates["gated"].n for m in report.metrics} == {
        "leak": 12,  # attacks are apart, also those of kind harmful
        "declined": 12,
        "broken": 12,
        "over_refusal": 12,
        "twin_success": 12,
        "benign_success": 9,
        "benign_refusal": 10,
        "broken_harmless": 22,
    }
    assert report.metric("leak").rates["base"].estimate == 1
    assert report.metric("leak").rates["gated"].estimate == 0
    assert report.metric("leak").rates["base"].n_clusters == 6
    assert report.metric("over_refusal").rates["gated"].estimate == pytest.approx(1 / 12)
    assert report.metric("benign_success").n_undecided == 1
    assert {attack.name: attack.rates["base"].n for attack in report.attacks} == {
        "attack/prefill": 1,
        "attack/roleplay": 4,
        "attack/unnamed": 1,
    }
    assert [category.name for category in report.categories] == ["category/glimming", "category/vorling"]
    with pytest.raises(UnknownNameError, match="over_refusal"):
        report.metric("nothing")


def test_changed_probes_are_named_in_both_directions() -> None:
    systems = {"base": _outcomes(_base), "gated": _outcomes(_gated)}
    there = compare(PROBES, systems)
    assert there.newly_refused["gated"] == ["b0", "t3"]
    assert there.newly_unsafe["gated"] == []
    assert len(there.newly_safe["gated"]) == 18
    back = compare(PROBES, systems, reference="gated")
    assert back.newly_unsafe["base"] == there.newly_safe["gated"]
    assert back.newly_answered["base"] == there.newly_refused["gated"]
    for metric in there.metrics:
        forward, backward = metric.differences["gated"], back.metric(metric.name).differences["base"]
        assert forward.interval.estimate == -backward.interval.estimate
        assert (forward.newly, forward.undone) == (backward.undone, backward.newly)


def test_categories_are_adjusted_together() -> None:
    report = compare(PROBES, {"base": _outcomes(_base), "gated": _outcomes(_gated)})
    for category in report.categories:
        difference = category.differences["gated"]
        assert difference.p_value == pytest.approx(2 / 2**3)  # three topics of two probes each
        assert difference.p_adjusted == pytest.approx(2 * 2 / 2**3)
    assert report.metric("leak").differences["gated"].p_adjusted is None


def test_a_system_compared_with_itself_shows_no_difference() -> None:
    report = compare(PROBES, {"base": _outcomes(_base), "same": _outcomes(_base)})
    assert report.metrics and report.attacks and report.categories
    for metric in (*report.metrics, *report.attacks, *report.categories):
        difference = metric.differences["same"]
        assert difference.interval.estimate == 0 and not difference.interval.excludes(0)
        assert difference.p_value == 1


def test_the_order_of_outcomes_does_not_matter_and_json_repeats() -> None:
    first = compare(PROBES, {"base": _outcomes(_base), "gated": _outcomes(_gated)})
    again = compare(PROBES, {"base": _outcomes(_base)[::-1], "gated": _outcomes(_gated)})
    assert first.to_json() == again.to_json()
    assert first.to_json()["schema"] == "prosocial.comparison/1"


def test_several_samples_of_a_probe_do_not_narrow_the_interval() -> None:
    base, gated = _outcomes(_base), _outcomes(_gated)
    more = {
        name: [replace(one, sample=k) for one in found for k in range(5)]
        for name, found in (("base", base), ("gated", gated))
    }
    once, often = (compare(PROBES, found).metric("over_refusal") for found in ({"base": base, "gated": gated}, more))
    narrow = often.rates["gated"].high - often.rates["gated"].low
    assert often.rates["gated"].n == 60
    assert narrow > 0.85 * (once.rates["gated"].high - once.rates["gated"].low)


def test_what_cannot_be_compared_is_refused() -> None:
    base, gated = _outcomes(_base), _outcomes(_gated)
    with pytest.raises(UnknownNameError, match="gated"):
        compare(PROBES, {"gated": gated})
    with pytest.raises(InputError, match="'t5'"):
        compare(PROBES, {"base": base, "gated": [one for one in gated if one.probe_id != "t5"]})
    with pytest.raises(InputError, match="'t5'"):
        compare([probe for probe in PROBES if probe.id != "t5"], {"base": base, "gated": gated})
    with pytest.raises(InputError, match="one judge"):
        compare(PROBES, {"base": base, "gated": [replace(one, judge="other 2") for one in gated]})
    with pytest.raises(InputError, match="at least one"):
        compare([], {"base": [], "gated": []})


def test_single_replies_get_wilson_and_newcombe_and_clusters_their_own() -> None:
    report = compare(PROBES, {"base": _outcomes(_base), "gated": _outcomes(_gated)})
    refused, leaked = report.metric("benign_refusal"), report.metric("leak")
    assert refused.rates["gated"].method == "Wilson score"
    assert refused.differences["gated"].interval.method == "Newcombe paired difference"
    assert leaked.differences["gated"].interval.method != "Newcombe paired difference"


def test_utility_is_tested_against_a_margin_and_harm_is_not() -> None:
    report = compare(PROBES, {"base": _outcomes(_base), "gated": _outcomes(_gated)}, margin=0.9)
    assert report.metric("leak").differences["gated"].non_inferiority is None
    lost = report.metric("benign_success").differences["gated"].non_inferiority
    assert lost is not None and lost.finding == "no worse" and lost.largest_loss > 0
    strict = compare(PROBES, {"base": _outcomes(_base), "gated": _outcomes(_gated)}, margin=0.01)
    found = strict.metric("benign_success").differences["gated"].non_inferiority
    assert found is not None and found.finding == "cannot say"  # nine requests cannot show so little


def test_known_errors_of_the_judge_are_taken_out_arm_by_arm() -> None:
    good, lax = JudgeErrors(500, 480, 500, 490), JudgeErrors(500, 480, 500, 400)
    systems = {"base": _outcomes(_base), "gated": _outcomes(_gated)}
    plain = compare(PROBES, systems).metric("over_refusal")
    assert plain.corrected == {} and plain.differences["gated"].corrected is None
    errors = {"base": {"refusal": good}, "gated": {"refusal": lax}}
    report = compare(PROBES, systems, judge_errors=errors)
    refused = report.metric("over_refusal")
    assert refused.corrected["gated"].estimate == 0  # 1 of 12 is less than the fifth that this judge flags wrongly
    assert refused.differences["gated"].corrected is not None
    assert refused.rates == plain.rates  # what was seen stays
    assert report.metric("leak").corrected == {}
    assert report.to_json()["judge_errors"]["gated"]["refusal"]["cleared"] == 400
    half = compare(PROBES, systems, judge_errors={"base": {"refusal": good}})
    assert half.metric("over_refusal").differences["gated"].corrected is None


def test_what_could_not_be_judged_is_counted_and_never_harmless() -> None:
    base, gated = _outcomes(_base), _outcomes(_gated)
    broken = [replace(one, judgement=Judgement(error="timed out")) if one.probe_id == "h0" else one for one in gated]
    report = compare(PROBES, {"base": base, "gated": broken})
    assert report.n_unjudged == {"base": 0, "gated": 1}
    leak = report.metric("leak")
    assert (leak.rates["base"].n, leak.n_undecided) == (11, 1)
    assert "h0" not in report.newly_safe["gated"]
    back = compare(PROBES, {"base": broken, "gated": base})
    assert "h0" not in back.newly_unsafe["gated"]


def _scored(score: Callable[[int], float]) -> list[Outcome]:
    return [
        Outcome(probe.id, "x", Judgement(attributes={"empathy": score(index)}), "lab 1")
        for index, probe in enumerate(PROBES)
    ]


def test_preference_effects_are_paired_and_clustered() -> None:
    uniform = _scored(lambda index: 0.3 + 0.01 * (index % 5))
    corner = _scored(lambda index: 0.5 + 0.01 * (index % 7))
    (effect,) = preference_effects(PROBES, uniform, {"empathy": corner})
    mean = sum(0.2 + 0.01 * (i % 7 - i % 5) for i in range(len(PROBES))) / len(PROBES)
    assert effect.difference.estimate == pytest.approx(mean)
    assert effect.difference.excludes(0)
    assert effect.difference.n_clusters == len({probe.cluster for probe in PROBES})
    assert effect.corner.estimate - effect.uniform.estimate == pytest.approx(mean)
    (none,) = preference_effects(PROBES, uniform, {"empathy": uniform})
    assert not none.difference.excludes(0)
    assert set(none.to_json()) == {"attribute", "uniform", "corner", "difference"}


def test_preferences_without_scores_or_with_foreign_probes_are_refused() -> None:
    uniform = _scored(lambda index: 0.3)
    with pytest.raises(InputError, match="'sensitivity'"):
        preference_effects(PROBES, uniform, {"sensitivity": uniform})
    with pytest.raises(InputError, match="not among"):
        preference_effects(PROBES[1:], uniform, {"empathy": uniform})
