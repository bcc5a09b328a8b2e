"""Parity finds what differs, excuses only what rounding could turn, and fails closed."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosocial.core.equal_lengths import equal_length_batches
from prosocial.core.errors import ArtefactError, InputError, UnknownNameError
from prosocial.moved import new_path
from prosocial.verify.parity import batches
from prosocial.verify.parity.divergence import top_margin
from prosocial.verify.parity.engines import ScoredReply, StepOutputs
from prosocial.verify.parity.gates import ParityGates, ParityVerdict, gate, worst
from prosocial.verify.parity.localisation import FirstDifference, first_difference
from prosocial.verify.parity.measure import Setting, join, measure_parity, measure_setting
from prosocial.verify.parity.measurement import Measurement, read_measurement, write_measurement
from prosocial.verify.parity.parity_document import SCHEMA_FILE, ParityDocument, json_schema

from ..table_engine import INF, PROMPTS, TableEngine, V, tied


def test_an_engine_passes_against_itself_with_zeros_everywhere() -> None:
    report = measure_parity(TableEngine(), TableEngine(name="same"), PROMPTS)
    document = report.to_json()
    assert report.verdict == ParityVerdict.PASS
    assert document["logit_difference"]["max"] == document["kl"]["max"] == 0
    assert document["top1_agreement"] == 1
    assert document["safe_set"]["n_flips"] == 0
    assert document["greedy"]["n_identical"] == 3
    assert {gate["set_by"] for gate in document["gates"]} == {"always", "default"}


def test_rounding_noise_passes_and_larger_noise_fails_with_the_gate_named() -> None:
    noise = np.random.default_rng(1).normal(0, 1, (V, V))
    small = measure_parity(TableEngine(), TableEngine(nudge=1e-6 * noise), PROMPTS)
    large = measure_parity(TableEngine(), TableEngine(nudge=1e-2 * noise), PROMPTS)
    assert small.verdict == ParityVerdict.PASS
    assert 0 < small.to_json()["logit_difference"]["max"] < 1e-4
    assert large.verdict == ParityVerdict.FAIL
    failed = {gate.name for gate in large.gates if gate.verdict == ParityVerdict.FAIL}
    assert "max_logit_difference" in failed


def test_a_threshold_can_be_moved_and_says_by_whom() -> None:
    noise = np.random.default_rng(1).normal(0, 1, (V, V))
    gates = ParityGates().with_thresholds("someone", max_logit_difference=1.0, kl_p99=1.0, logit_tie=0.1)
    report = measure_parity(TableEngine(), TableEngine(nudge=1e-2 * noise), PROMPTS, gates=gates)
    moved = {gate.name: gate for gate in report.gates}
    assert moved["max_logit_difference"].verdict == ParityVerdict.PASS
    assert (moved["max_logit_difference"].set_by, moved["flips"].set_by) == ("someone", "default")
    with pytest.raises(UnknownNameError, match="kl_p99"):
        gates.with_thresholds("someone", kl=1.0)


def test_a_broken_number_fails() -> None:
    class Broken(TableEngine):
        def score(self, prompt: Sequence[int], reply: Sequence[int]) -> StepOutputs:
            found = super().score(prompt, reply)
            found.logits[0, 5] = np.nan
            return found

    for pair in ((TableEngine(), Broken()), (Broken(), TableEngine())):
        report = measure_parity(*pair, PROMPTS)
        assert report.verdict == ParityVerdict.FAIL
        assert next(gate for gate in report.gates if gate.name == "broken").verdict == ParityVerdict.FAIL


def test_greedy_replies_that_part_at_a_near_tie_are_ambiguous_elsewhere_they_fail() -> None:
    near = measure_parity(*tied(2e-4), PROMPTS)
    assert near.verdict == ParityVerdict.AMBIGUOUS
    (parted,) = near.to_json()["greedy"]["differences"]
    assert (parted["prompt"], parted["position"], parted["near_tie"]) == ("b", 0, True)
    assert parted["margin"] == pytest.approx(2e-4, rel=0.05)
    gates = ParityGates().with_thresholds("test", max_logit_difference=1.0, kl_p99=1.0)
    far = measure_parity(*tied(0.05), PROMPTS, gates=gates)
    assert {gate.name for gate in far.gates if gate.verdict == ParityVerdict.FAIL} == {
        "top1_disagreement",
        "greedy_divergences",
    }


def test_a_risk_that_moves_across_the_threshold_is_a_flip() -> None:
    base = TableEngine()
    plausible = base.score([7], [])
    margins = plausible.margins()
    token = int(np.flatnonzero(np.isfinite(plausible.logits[0]))[3])
    nudge = np.zeros((V, V))
    nudge[7, token] = 1.0
    report = measure_parity(base, TableEngine(risk_nudge=nudge), {"b": [7]}, max_new_tokens=1)
    flips = next(result for result in report.gates if result.name == "flips")
    assert (flips.verdict, flips.observed) == (ParityVerdict.FAIL, 1)
    document = report.to_json()
    assert document["safe_set"]["flips"][0] == {
        "prompt": "b",
        "position": 0,
        "token": token,
        "safe_in": "reference",
        "near_tie": False,
        "plausibility_margin": pytest.approx(margins.plausibility[0, token], rel=1e-5),
        "safety_margin": pytest.approx(margins.safety[0, token], rel=1e-5),
    }
    assert document["safe_set"]["sizes_differ"] == 1


def test_what_noise_could_turn_is_told_apart_from_what_is_certified() -> None:
    nudge = np.random.default_rng(3).normal(0, 2e-4, (V, V))
    document = measure_parity(TableEngine(), TableEngine(risk_nudge=nudge), PROMPTS).to_json()
    found = document["safe_set"]
    assert 0 < found["risk_moved_at_most"] < 2e-3
    assert 0.5 < found["certified_share"] < 1  # the nearest risk of forty lies close at some position
    assert 0 < found["n_prompts_near_threshold"] <= 3
    assert found["prompt_flip_share_at_most"] > found["flip_share_at_most"]
    assert measure_parity(TableEngine(), TableEngine(), PROMPTS).to_json()["safe_set"]["certified_share"] == 1


def test_of_many_prompts_an_even_spread_is_asked_for_margins(monkeypatch: pytest.MonkeyPatch) -> None:
    nudge = np.random.default_rng(3).normal(0, 1e-6, (V, V))
    whole = measure_parity(TableEngine(), TableEngine(risk_nudge=nudge), PROMPTS)
    assert whole.to_json()["safe_set"]["n_prompts_with_margins"] == len(PROMPTS)
    monkeypatch.setattr("prosocial.verify.parity.measure.MOST_MARGINS", 1)
    part = measure_parity(TableEngine(), TableEngine(risk_nudge=nudge), PROMPTS)
    found, first = part.to_json(), next(iter(PROMPTS))
    assert found["safe_set"]["n_prompts_with_margins"] == 1
    assert found["token_risk_difference"]["worst"]["prompt"] == first
    moved = whole.divergences[first].token_risk
    assert moved is not None and found["safe_set"]["risk_moved_at_most"] == pytest.approx(moved.max(), rel=1e-4)


def test_gates_move_over_kept_measurements_and_give_what_a_new_run_would(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).normal(0, 1, (V, V))
    engines = TableEngine(), TableEngine(nudge=1e-2 * noise, risk_nudge=1e-2 * noise)
    found = measure_setting(Setting("s", *engines, PROMPTS, 32))
    found = replace(found, paths={"in one pass": 0.5}, subject={"manifest_sha256": "0"}, config_differences=("a",))
    found = replace(found, first_difference=FirstDifference("1.key", None, np.inf))
    write_measurement(tmp_path / "m.npz", found)
    again = read_measurement(tmp_path / "m.npz")
    for gates in (ParityGates(), ParityGates.for_precision("int8"), ParityGates(max_path_difference=None)):
        assert again.judge(gates).to_json() == found.judge(gates).to_json()
    lax = ParityGates().with_thresholds("x", max_logit_difference=9.0)
    verdicts = [
        {gate.name: gate.verdict for gate in again.judge(gates).gates}["max_logit_difference"]
        for gates in (ParityGates(), lax)
    ]
    assert verdicts == [ParityVerdict.FAIL, ParityVerdict.PASS]
    for raw in (b"", b"PK", (tmp_path / "m.npz").read_bytes()[:-50]):
        (tmp_path / "broken.npz").write_bytes(raw)
        with pytest.raises(ArtefactError, match=r"measurements.*prosocial verify --out"):
            read_measurement(tmp_path / "broken.npz")


def test_a_bundle_that_did_not_run_or_has_another_config_fails() -> None:
    dead = Measurement("a", "b", {}, (), 0, failure="the process died with signal 11")
    report = dead.judge(ParityGates())
    assert report.verdict is ParityVerdict.FAIL
    assert ParityDocument.model_validate(report.to_json()).gates[0].note == "the process died with signal 11"
    good = measure_setting(Setting("s", TableEngine(), TableEngine(), PROMPTS, 4))
    assert good.judge(ParityGates()).verdict is ParityVerdict.PASS
    other = replace(good, config_differences=("decoding.json: harm_threshold",))
    assert other.judge(ParityGates()).verdict is ParityVerdict.FAIL
    for off, verdict in (
        (1e-5, ParityVerdict.PASS),
        (0.1, ParityVerdict.FAIL),
        (np.nan, ParityVerdict.FAIL),
        (np.inf, ParityVerdict.FAIL),
    ):
        assert replace(good, paths={"in one pass": off}).judge(ParityGates()).verdict is verdict


def test_settings_are_joined_under_their_names() -> None:
    noise = np.random.default_rng(1).normal(0, 1, (V, V))
    plain = measure_setting(Setting("graph defaults", TableEngine(), TableEngine(), PROMPTS, 4))
    other = measure_setting(Setting("empathy=1", TableEngine(), TableEngine(nudge=noise), {"a": [3, 4]}, 4))
    report = join([plain, other]).judge(ParityGates())
    assert list(report.divergences) == ["a", "b", "c", "a [empathy=1]"]
    rows = {row["setting"]: row for row in report.to_json()["settings"]}
    assert (rows["graph defaults"]["n_flips"], rows["graph defaults"]["n_prompts"]) == (0, 3)
    assert rows["empathy=1"]["max_logit_difference"] > 0.1 and report.verdict is ParityVerdict.FAIL


def test_the_document_follows_its_published_schema() -> None:
    noise = np.random.default_rng(1).normal(0, 1, (V, V))
    shipped = json.loads(files("prosocial.verify.parity").joinpath(SCHEMA_FILE).read_text(encoding="utf-8"))
    assert shipped == json_schema()
    for other in (TableEngine(), TableEngine(nudge=noise, risk_nudge=noise)):
        document = measure_parity(TableEngine(), other, PROMPTS).to_json()
        assert ParityDocument.model_validate(document).to_json() == document
        assert set(document) == set(shipped["properties"]) == set(shipped["required"])


def test_the_first_point_that_jumps_is_named() -> None:
    rng = np.random.default_rng(0)
    points = {name: rng.normal(0, 1, (6, 8)).astype(np.float32) for name in ("a", "b", "c")}
    assert first_difference(points, points, noise=1e-5) is None
    for noise, off in ((1e-5, 1e-2), (2e-2, 0.5)):
        other = {name: values * np.float32(1 + noise / 2) for name, values in points.items()}
        other["b"], other["c"] = other["b"] + np.float32(off), other["c"] + np.float32(2 * off)
        found = first_difference(points, other, noise=noise)
        assert found is not None and (found.place, found.after) == ("b", "a")
    broken = points | {"a": np.full((6, 8), np.nan, np.float32)}
    found = first_difference(points, broken, noise=0.2)
    assert found is not None and (found.place, found.after) == ("a", None)


def test_equal_replies_need_no_second_pass() -> None:
    class Counted(TableEngine):
        n_scored = 0

        def _reply(self, prompt: Sequence[int], max_new_tokens: int) -> ScoredReply:
            before = self.n_scored
            found = super()._reply(prompt, max_new_tokens)
            self.n_scored = before
            return found

        def score(self, prompt: Sequence[int], reply: Sequence[int]) -> StepOutputs:
            self.n_scored += 1
            return super().score(prompt, reply)

    same, other = Counted(), Counted(nudge=np.random.default_rng(1).normal(0, 1, (V, V)))
    assert measure_parity(TableEngine(), same, PROMPTS).verdict == ParityVerdict.PASS
    assert same.n_scored == 0
    n_parted = sum(one.first_difference is not None for one in measure_parity(TableEngine(), other, PROMPTS).greedy)
    assert other.n_scored == n_parted > 0


def test_batches_do_not_change_the_report_and_report_their_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = {f"p{index}": [index % V] * (1 + index % 3) for index in range(30)}
    noise = np.random.default_rng(1).normal(0, 1, (V, V))
    documents = []
    for rows in (1, 4, 128):
        monkeypatch.setattr(batches, "MOST_ROWS", rows)
        engine, done = TableEngine(), list[int]()
        report = measure_parity(engine, TableEngine(nudge=1e-2 * noise), prompts, on_progress=done.append)
        documents.append(report.to_json())
        assert list(report.divergences) == [one.prompt_id for one in report.greedy] == list(prompts)
        assert max(engine.batches) == min(rows, 10)
        assert done == np.cumsum(engine.batches).tolist() and done[-1] == 30
    assert documents[0] == documents[1] == documents[2]


@given(st.integers(1, 10**5), st.integers(1, 300_000))
def test_recorded_logits_stay_in_memory(n_positions: int, vocabulary_size: int) -> None:
    rows = batches.rows_in_memory(n_positions, vocabulary_size)
    assert 1 <= rows <= 128
    assert rows == 1 or rows * n_positions * vocabulary_size * 4 <= 256 * 2**20


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), max_size=30), st.integers(1, 5))
def test_every_prompt_is_in_one_batch_of_its_length(prompts: list[list[int]], most_rows: int) -> None:
    found = equal_length_batches(map(len, prompts), lambda length: most_rows)
    assert sorted(index for batch in found for index in batch) == list(range(len(prompts)))
    assert all(len({len(prompts[index]) for index in batch}) == 1 and len(batch) <= most_rows for batch in found)


def test_engines_of_different_shape_and_no_prompts_are_refused() -> None:
    class Wide(TableEngine):
        def score(self, prompt: Sequence[int], reply: Sequence[int]) -> StepOutputs:
            found = super().score(prompt, reply)
            return replace(found, logits=np.pad(found.logits, ((0, 0), (0, 1))))

    with pytest.raises(InputError, match=r"logits of one shape.*\(.*40\).*\(.*41\)"):
        measure_parity(TableEngine(), Wide(), PROMPTS)
    with pytest.raises(InputError, match="at least one prompt"):
        measure_parity(TableEngine(), TableEngine(), {})
    with pytest.raises(InputError, match="at least 1, found 0"):
        measure_parity(TableEngine(), TableEngine(), PROMPTS, max_new_tokens=0)


def test_a_number_that_is_not_a_number_passes_no_gate() -> None:
    gates = ParityGates()
    verdicts = [gate("kl_p99", "KL", value, gates).verdict for value in (1e-5, 2e-5, float("nan"), INF)]
    assert verdicts == [ParityVerdict.PASS, ParityVerdict.FAIL, ParityVerdict.FAIL, ParityVerdict.FAIL]


def test_margins_and_severity_at_their_edges() -> None:
    assert np.isinf(top_margin(np.array([[1.0, -np.inf]]))).all()
    assert np.isinf(top_margin(np.array([[1.0]]))).all()
    assert worst([]) == ParityVerdict.AMBIGUOUS
    assert worst([ParityVerdict.PASS, ParityVerdict.FAIL, ParityVerdict.AMBIGUOUS]) == ParityVerdict.FAIL


@pytest.mark.parametrize(
    ("package", "new"),
    [
        ("verify", "verify.ParityVerdict"),
        ("verify.parity", "verify.parity.ParityVerdict"),
        ("evaluation.cosa_score", "evaluation.cosa_score.CosaVerdict"),
    ],
)
def test_a_verdict_is_still_there_under_its_old_name(package: str, new: str) -> None:
    listed = import_module(f"prosocial.{package}")
    with pytest.warns(DeprecationWarning, match=f"prosocial.{package}.Verdict is now prosocial.{new};"):
        old = listed.Verdict

    assert old is getattr(listed, new.rpartition(".")[2])


@pytest.mark.parametrize("name", ["verify.audit.page", "verify.parity.document"])
def test_a_renamed_module_is_still_there_under_its_old_path(name: str) -> None:
    sys.modules.pop(f"prosocial.{name}", None)
    with pytest.warns(DeprecationWarning, match=f"prosocial.{name} is now {new_path(f'prosocial.{name}')};"):
        old = import_module(f"prosocial.{name}")

    assert old is import_module(str(new_path(f"prosocial.{name}")))
