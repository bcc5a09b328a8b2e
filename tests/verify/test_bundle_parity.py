"""The real thing on a pico world: torch and ONNX Runtime step for step."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import InputError
from prosocial.evaluation.probes.probe import read_probes
from prosocial.evaluation.sampling.systems import open_system
from prosocial.export import Bundle
from prosocial.steering.decoding.controls import Steering
from prosocial.steering.decoding.engine import Engine
from prosocial.steering.steered_model import SteeredModel
from prosocial.steering.torch_engine import PlainEngine, SteeredEngine
from prosocial.verify import ParityVerdict, measure_parity, verify_bundle
from prosocial.verify.bundle_parity import default_probes, parity_prompts
from prosocial.verify.parity.child import Server
from prosocial.verify.parity.engines import StepOutputs
from prosocial.verify.parity.graph_in_memory import feed, open_graph
from prosocial.verify.parity.graph_margins import GraphMargins
from prosocial.verify.parity.reference import Reference
from prosocial.verify.parity.steered_margins import SteeredMargins
from prosocial.verify.parity.stepping import SteppingEngine

from .parity_world import change_weight, copy, fit_manifest

VOCABULARY = 200
PROMPTS = {"a": [5, 6, 7], "b": [20, 30], "c": [9, 8, 7, 6]}


@pytest.fixture(scope="module")
def steered(steered_folder: Path) -> SteeredModel:
    return SteeredModel.open(steered_folder)


def test_a_bundle_passes_against_what_it_was_exported_from(
    bundle_folder: Path, steered_folder: Path, probes_file: Path
) -> None:
    done: list[int] = []
    report = verify_bundle(
        bundle_folder,
        reference=steered_folder,
        probes=read_probes(probes_file),
        max_new_tokens=6,
        on_progress=done.append,
    )
    assert done[-1] == 13
    assert report.verdict == ParityVerdict.PASS, report.to_json()["gates"]
    assert report.n_positions >= 13
    assert report.to_json()["safe_set"]["n_decisions"] > 0


def test_a_process_that_dies_is_a_verdict(bundle_folder: Path, steered_folder: Path) -> None:
    """ONNX Runtime's process is killed in the middle, as a crash in native code would end it."""

    def kill(n_done: int) -> None:
        for child in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
            if b"parity.child" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(int(child), signal.SIGKILL)

    report = verify_bundle(bundle_folder, reference=steered_folder, max_new_tokens=3, on_progress=kill)
    assert report.verdict == ParityVerdict.FAIL
    assert report.gates[0].name == "runs" and "signal 9" in report.gates[0].note
    assert report.subject["manifest_sha256"]


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "the gate's offsets": (change_weight("steered.gate.a", lambda values: values + 0.1), "gate (risk of tokens)"),
    "the default threshold": (
        change_weight("harm_threshold", lambda values: values + 1e-6),
        "default of harm_threshold",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_a_bundle_is_found_and_its_place_named(
    name: str, bundle_folder: Path, steered_folder: Path, tmp_path: Path
) -> None:
    fault, place = FAULTS[name]
    bundle = copy(bundle_folder, tmp_path / "bundle")
    fault(bundle)
    report = verify_bundle(bundle, reference=steered_folder, max_new_tokens=4)
    assert report.verdict == ParityVerdict.FAIL
    assert str(report.first_difference).startswith(place), report.first_difference


def test_another_decoding_config_is_told_by_its_keys(bundle_folder: Path, steered_folder: Path, tmp_path: Path) -> None:
    bundle = copy(bundle_folder, tmp_path / "bundle")
    config = json.loads((bundle / "decoding.json").read_text())
    (bundle / "decoding.json").write_text(json.dumps(config | {"harm_threshold": 0.61, "max_new_tokens": 5}))
    fit_manifest(bundle)
    report = verify_bundle(bundle, reference=steered_folder, max_new_tokens=4)
    keys = ("decoding.json: harm_threshold", "decoding.json: max_new_tokens")
    assert (report.verdict, report.config_differences) == (ParityVerdict.FAIL, keys)


def test_another_gate_is_found(bundle_folder: Path, steered: SteeredModel, steered_folder: Path) -> None:
    """The control: a reference whose gate is a little stricter does not pass for the same model."""
    trusted = Reference.open(steered_folder, is_steered=True).under(None)
    stricter = SteppingEngine(
        SteeredEngine(steered), name="stricter", end_ids=(1,), steering=Steering(harm_threshold=0.4)
    )
    report = measure_parity(trusted, stricter, PROMPTS, max_new_tokens=6)
    assert report.verdict == ParityVerdict.FAIL
    flips = [flip for found in report.divergences.values() for flip in found.flips]
    assert flips and not all(flip.near_tie for flip in flips)


def test_margins_say_what_the_rule_says(steered: SteeredModel) -> None:
    """A token is finite exactly where both margins are positive (no row is closed here)."""
    engine = SteppingEngine(SteeredEngine(steered), name="t", end_ids=(1,), margins=SteeredMargins(steered))
    scored = engine.score([5, 6, 7], [11, 12, 13])
    assert scored.margins is not None and (scored.safe_set_size > 0).all()
    margins = scored.margins()
    plausibility, safety = margins.plausibility, margins.safety
    np.testing.assert_array_equal(np.isfinite(scored.logits), (plausibility > 0) & ~(safety < 0))
    assert np.isposinf(safety[:, 1]).all()


def test_stepping_through_the_cache_agrees_with_one_pass(steered: SteeredModel) -> None:
    import torch

    engine = SteppingEngine(SteeredEngine(steered), name="t", end_ids=(1,))
    scored = engine.score([5, 6, 7], [11, 12])
    with torch.inference_mode():
        whole = steered(torch.tensor([[5, 6, 7, 11, 12]]))
    expected = whole.logits[0, 2:].numpy()
    np.testing.assert_array_equal(np.isfinite(scored.logits), np.isfinite(expected))
    both = np.isfinite(expected)
    np.testing.assert_allclose(scored.logits[both], expected[both], atol=1e-4)
    (reply,) = engine.replies([[5, 6, 7]], max_new_tokens=5)
    assert reply.tokens[0] == int(scored.logits[0].argmax())
    assert len(reply.tokens) <= 5


def test_a_pass_over_all_tokens_decides_at_the_last_positions_only(bundle_folder: Path) -> None:
    """Logits of every token of a long prompt would take gigabytes with a large vocabulary."""
    bundle = Bundle.open(bundle_folder)
    ids, n_last = [5, 6, 7, 11, 12, 13], 2
    session = open_graph(bundle.files.graph, bundle)
    (logits,) = session.run(["logits"], feed(session, ids, n_last))
    assert logits.shape == (1, n_last, VOCABULARY)
    _, whole = Server(bundle_folder, "CPUExecutionProvider").whole(ids=ids, n_last=n_last, steering=None)
    np.testing.assert_allclose(logits[0], whole["logits"], atol=1e-4)
    assert GraphMargins(bundle)(ids, n_last, None).safety.shape == (n_last, VOCABULARY)


# The end token of the gate, and others, so that replies end at different places and rows leave the stream.
ENDS = (1, *range(0, VOCABULARY, 9))


def _both_engines(steered: SteeredModel, bundle_folder: Path) -> dict[str, Engine]:
    return {"torch": SteeredEngine(steered), "onnx": Bundle.open(bundle_folder).engine}


@pytest.mark.parametrize("side", ["torch", "onnx"])
@pytest.mark.parametrize("steering", [None, Steering(preference={"empathy": 1.0}, harm_threshold=0.55)])
def test_replies_do_not_depend_on_the_batch_and_carry_what_score_gives(
    steered: SteeredModel, bundle_folder: Path, side: str, steering: Steering | None
) -> None:
    prompts = [[3 + (7 * at) % 190, *range(20, 22 + at % 3)] for at in range(24)]
    found = {}
    for size in (1, 5, 128):
        engine = SteppingEngine(
            _both_engines(steered, bundle_folder)[side], name=side, end_ids=ENDS, steering=steering, batch_size=size
        )
        found[size] = engine.replies(prompts, max_new_tokens=12)
    assert len({len(reply.tokens) for reply in found[1]}) > 3
    for prompt, alone, few, many in zip(prompts, *found.values(), strict=True):
        assert alone.tokens == few.tokens == many.tokens
        assert len(alone.tokens) == 12 or alone.tokens[-1] in ENDS
        assert not set(alone.tokens[:-1]) & set(ENDS)
        for outputs in (few.outputs, many.outputs, engine.score(prompt, alone.tokens[:-1])):
            _assert_close(outputs, alone.outputs)


def _assert_close(actual: StepOutputs, expected: StepOutputs) -> None:
    np.testing.assert_allclose(actual.logits, expected.logits, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(actual.risk, expected.risk, atol=1e-5)
    np.testing.assert_array_equal(actual.safe_set_size, expected.safe_set_size)


def test_a_plain_checkpoint_is_a_reference_too(checkpoint_folder: Path) -> None:
    engine = Reference.open(checkpoint_folder, is_steered=False).under(None)
    report = measure_parity(engine, engine, {"a": [5, 6]}, max_new_tokens=3)
    assert report.verdict == ParityVerdict.PASS
    assert report.to_json()["risk_difference"]["max"] == 0


def test_another_tokenizer_is_refused_before_anything_runs(steered_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(steered_folder, other)
    template = (other / "chat_template.jinja").read_text(encoding="utf-8")
    (other / "chat_template.jinja").unlink()  # it may be a hard link
    (other / "chat_template.jinja").write_text(template.replace("</s>{% endfor", "</s><s>{% endfor"), encoding="utf-8")
    first, second = ChatTokenizer(steered_folder), ChatTokenizer(other)
    with pytest.raises(InputError, match="default-0"):
        parity_prompts(first, second, default_probes())
    assert len(parity_prompts(first, first, default_probes())) == 12


def test_every_kind_of_folder_answers(
    checkpoint_folder: Path, steered_folder: Path, bundle_folder: Path, probes_file: Path
) -> None:
    probes = read_probes(probes_file)
    replies = {}
    for folder, kind in ((checkpoint_folder, "checkpoint"), (steered_folder, "steered"), (bundle_folder, "bundle")):
        system = open_system(folder)
        assert system.kind == kind
        replies[kind] = [reply.text for reply in system.answer(probes, seed=3, temperature=0.7, max_new_tokens=4)]
        assert len(replies[kind]) == len(probes)
    assert replies["steered"] == replies["bundle"]  # same noise, same decisions
    shuffled = open_system(checkpoint_folder).answer(probes[::-1], seed=3, temperature=0.7, max_new_tokens=4)
    assert [reply.text for reply in shuffled[::-1]] == replies[
        "checkpoint"
    ]  # the noise hangs on the probe, not on its place


def test_plain_engine_has_no_controls(checkpoint_folder: Path) -> None:
    from prosocial.editing.checkpoints import load_model

    engine = SteppingEngine(PlainEngine(load_model(checkpoint_folder)), name="p", end_ids=(1,), steering=Steering())
    assert engine.score([5], []).risk.shape == (1, 0)
    assert json.dumps(engine.replies([[5]], max_new_tokens=2)[0].tokens)
