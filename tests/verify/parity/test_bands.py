"""The band that noise is measured to have excuses this noise, and nothing else."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from prosocial.verify.parity.engines import StepOutputs
from prosocial.verify.parity.gates import ParityGates, ParityVerdict
from prosocial.verify.parity.measure import measure_parity

from ..table_engine import PROMPTS, TableEngine, V, tied

INT8 = ParityGates.for_precision("int8")


MANY = {f"{at}-{token}": [token] for at in range(4) for token in range(V) if token != 7} | {"b": [7]}


def _one_risk_moved(by: float = 1.0) -> TableEngine:
    """An engine whose risk of one token, after token 7, is another."""
    token = int(np.flatnonzero(np.isfinite(TableEngine().score([7], []).logits[0]))[3])
    nudge = np.zeros((V, V))
    nudge[7, token] = by
    return TableEngine(risk_nudge=nudge)


def test_a_measured_band_excuses_the_noise_that_it_measures() -> None:
    noise = np.random.default_rng(8).uniform(-0.012, 0.012, (V, V))
    shaken = TableEngine(risk_nudge=noise, nudge=0.01 * noise)
    strict, own = (measure_parity(TableEngine(), shaken, MANY, gates=gates, max_new_tokens=4) for gates in (None, INT8))
    assert strict.verdict == ParityVerdict.FAIL and own.verdict == ParityVerdict.PASS
    document = own.to_json()
    bands = document["safe_set"]["bands"]
    assert bands["set_by"] == "measured" and own.ties.risk == pytest.approx(bands["risk"], rel=1e-5)
    assert own.ties.risk == pytest.approx(2 * document["token_risk_difference"]["p99"], rel=1e-5)
    assert own.ties.logit == pytest.approx(4 * document["logit_difference"]["p99"], rel=1e-5)
    assert 0.02 < own.ties.risk < 0.025
    assert document["safe_set"]["n_near_ties"] == document["safe_set"]["n_flips"] > 0
    assert document["safe_set"]["n_positions_near_threshold"] >= 1
    assert {gate.set_by for gate in own.gates} <= {"always", "default", "default for int8"}
    assert not {"max_logit_difference", "greedy_divergences", "kl_p99"} & {gate.name for gate in own.gates}


@pytest.mark.parametrize("precision", ["fp16", "int8", "int4"])
def test_one_token_let_in_that_noise_does_not_explain_fails_at_every_precision(precision: Any) -> None:
    """A rare large difference, such as a gate opened for one token, widens no band that could excuse it."""
    gates = ParityGates.for_precision(precision)
    report = measure_parity(_one_risk_moved(), TableEngine(), MANY, gates=gates, max_new_tokens=1)
    assert {gate.name for gate in report.gates if gate.verdict == ParityVerdict.FAIL} == {"flips"}
    assert report.to_json()["safe_set"]["n_unsafe_let_in"] == report.to_json()["safe_set"]["n_flips"] == 1


def test_noise_that_would_excuse_everything_fails_by_its_own_gate() -> None:
    loud = TableEngine(risk_nudge=np.random.default_rng(3).uniform(-0.4, 0.4, (V, V)))
    report = measure_parity(TableEngine(), loud, MANY, gates=INT8, max_new_tokens=4)
    assert report.to_json()["safe_set"]["n_flips"] > 3
    assert {gate.name: gate.verdict for gate in report.gates}["token_risk_p99"] == ParityVerdict.FAIL


def test_margins_that_are_broken_excuse_nothing() -> None:
    """Without a number for the noise the band is none."""

    class Broken(TableEngine):
        def score(self, prompt: Sequence[int], reply: Sequence[int]) -> StepOutputs:
            found = super().score(prompt, reply)
            return replace(found, risk=np.full_like(found.risk, np.nan), margins=None)

    broken = Broken(risk_nudge=np.random.default_rng(4).uniform(-0.4, 0.4, (V, V)))
    report = measure_parity(TableEngine(), broken, PROMPTS, gates=INT8)
    flips = [flip for found in report.divergences.values() for flip in found.flips]
    assert report.verdict == ParityVerdict.FAIL and flips and not all(flip.near_tie for flip in flips)


def test_a_most_likely_token_is_not_excused_by_the_noise_that_moved_it() -> None:
    base, other = tied(0.05)
    report = measure_parity(base, other, PROMPTS, gates=INT8)
    found = next(gate for gate in report.gates if gate.name == "top1_disagreement")
    assert found.observed > 0 and not found.note
