"""What a quantisation costs in decisions: measured by the same command, gated outside the noise it measures."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from prosocial.cli.verify import verify
from prosocial.evaluation.probes.probe import read_probes
from prosocial.export import Bundle, export_bundle
from prosocial.steering.decoding.controls import Steering
from prosocial.steering.steered_model import SteeredModel
from prosocial.steering.torch_engine import SteeredEngine
from prosocial.verify import ParityGates, ParityVerdict, measure_parity, verify_bundle
from prosocial.verify.bundle_parity import bundle_gates
from prosocial.verify.parity.reference import Reference
from prosocial.verify.parity.stepping import SteppingEngine

PROMPTS = {f"p{at}": [3 + (7 * at) % 190, 20 + at] for at in range(24)}
# A random model is flat: its first two tokens are closer than those of any trained one.
FLAT = {"top1_disagreement": 0.2}


@pytest.fixture(scope="module")
def int8_folder(steered_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("int8") / "bundle"
    export_bundle(steered_folder, out, precision="int8")
    return out


def test_int8_keeps_every_decision_outside_the_noise_band(
    int8_folder: Path, steered_folder: Path, probes_file: Path
) -> None:
    gates = bundle_gates(int8_folder).with_thresholds("test", **FLAT)
    report = verify_bundle(
        int8_folder, reference=steered_folder, probes=read_probes(probes_file), gates=gates, max_new_tokens=8
    )
    document = report.to_json()
    found = document["safe_set"]
    assert report.verdict == ParityVerdict.PASS, document["gates"]
    assert 0 < found["n_flips"] == found["n_near_ties"] < found["n_decisions"] / 5
    assert 0 < found["bands"]["risk"] < 0.1 and 0 < found["bands"]["logit"] < 0.2
    assert 0 < document["kl"]["mean"] < 1e-3 and document["bundle"] == "ONNX Runtime, CPU, int8"
    strict = verify_bundle(int8_folder, reference=steered_folder, gates=ParityGates(), max_new_tokens=8)
    assert strict.verdict == ParityVerdict.FAIL  # the control: by the gates of float32 it is another model


def test_another_gate_is_found_behind_the_noise_of_int8(int8_folder: Path, steered_folder: Path) -> None:
    trusted = Reference.open(steered_folder, is_steered=True).under(None)
    engine = Bundle.open(int8_folder, threads=1).engine
    looser = SteppingEngine(engine, name="looser", end_ids=(1,), steering=Steering(harm_threshold=0.9))
    gates = ParityGates.for_precision("int8").with_thresholds("test", **FLAT)
    report = measure_parity(trusted, looser, PROMPTS, gates=gates, max_new_tokens=4)
    results = {gate.name: gate for gate in report.gates}
    assert results["flips"].verdict == ParityVerdict.FAIL
    assert report.to_json()["safe_set"]["n_unsafe_let_in"] > 10
    same = SteppingEngine(SteeredEngine(SteeredModel.open(steered_folder)), name="same", end_ids=(1,))
    assert measure_parity(trusted, same, PROMPTS, gates=gates, max_new_tokens=4).verdict == ParityVerdict.PASS


def test_the_command_takes_the_gates_of_the_bundle(int8_folder: Path, steered_folder: Path) -> None:
    app = typer.Typer()
    app.command("verify")(verify)
    words = [str(int8_folder), "--reference", str(steered_folder), "--max-new-tokens", "3"]
    shown = CliRunner().invoke(app, words, env={"COLUMNS": "160"})
    assert "default for int8" in shown.output and "noise band (measured): risk within" in shown.output
    assert "safety decisions differ" in shown.output and "allow a token that the reference calls unsafe" in shown.output
    strict = CliRunner().invoke(app, [*words, "--json", "--max-kl-p99", "1e-30"])
    gates = {gate["name"]: gate for gate in json.loads(strict.stdout)["gates"]}
    assert strict.exit_code == 1
    assert (gates["kl_p99"]["set_by"], gates["kl_p99"]["verdict"]) == ("command line", "fail")
    assert gates["kl_mean"]["set_by"] == "default for int8"
