"""`verify` covers what every client reads: each file that could send one elsewhere is a named check."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from prosocial.core.files import read_json, write_json
from prosocial.export import export_bundle
from prosocial.export.presets import write_presets
from prosocial.steering.configs import SafetyConfig
from prosocial.steering.decoding.config import DecodingConfig
from prosocial.steering.steered_model import SteeredModel
from prosocial.verify import ParityVerdict, verify_bundle
from prosocial.verify.parity.divergence import Ties, divergence
from prosocial.verify.parity.engines import Margins, StepOutputs
from prosocial.verify.parity.entry_points import entry_points
from prosocial.verify.parity.gates import ParityGates
from prosocial.verify.parity.genai_client import is_installed
from prosocial.verify.parity.judging import judge
from prosocial.verify.parity.measure import largest_difference

from .parity_world import copy, fit_manifest

CHECKS = ("genai_config", "presets", "side_files", "other_files")
CONFIGS = {"strict": SafetyConfig(threshold=0.0), "fiction": SafetyConfig(allowed=["violence"], threshold=0.7)}
World = tuple[Path, Path, Any]
Attack = Callable[[Path], object]


@pytest.fixture(scope="module")
def world(pico: Any, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A steered folder, its bundle, and the backbone."""
    folder = tmp_path_factory.mktemp("entry")
    steered = pico.steered_folder(folder, safety_configs=CONFIGS)
    export_bundle(steered, folder / "bundle")
    return steered, folder / "bundle", SteeredModel.open(steered).backbone


def genai(*keys: str, value: Any) -> Attack:
    def attack(folder: Path) -> None:
        data = read_json(folder / "genai_config.json")
        place = data
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = value
        write_json(folder / "genai_config.json", data)

    return attack


def preset(name: str, **changes: Any) -> Attack:
    """Write a preset with other values than its safety config's."""

    def attack(folder: Path) -> None:
        path = folder / "presets" / f"{name}.onnx_adapter"
        values = {"allowed": [[1.0, 0.0, 0.0]], "harm_threshold": [0.9]} | changes
        adapter = onnxruntime.AdapterFormat()
        adapter.set_adapter_version(1)
        adapter.set_model_version(1)
        arrays = {key: np.array(value, np.float32) for key, value in values.items()}
        adapter.set_parameters({key: onnxruntime.OrtValue.ortvalue_from_numpy(value) for key, value in arrays.items()})
        path.unlink(missing_ok=True)
        adapter.export_adapter(str(path))

    return attack


def other(name: str, **changes: Any) -> Attack:
    return lambda folder: write_json(folder / name, read_json(folder / name) | changes)


def second_graph(folder: Path) -> None:
    shutil.copy(folder / "model.onnx", folder / "fast.onnx")


def ungated(folder: Path) -> None:
    second_graph(folder)
    genai("model", "decoder", "filename", value="fast.onnx")(folder)


def exchange(folder: Path) -> None:
    shutil.copy(folder / "presets/fiction.onnx_adapter", folder / "presets/strict.onnx_adapter")


def template_of_others(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    config = read_json(folder / "decoding.json") | {"chat_template_sha256": None}
    write_json(folder / "decoding.json", config)


ATTACKS: dict[str, tuple[Attack, str]] = {
    "another graph": (ungated, "genai_config"),
    "a graph that nobody names": (second_graph, "other_files"),
    "temperature 5": (genai("search", "temperature", value=5.0), "genai_config"),
    "sampling": (genai("search", "do_sample", value=True), "genai_config"),
    "top_k": (genai("search", "top_k", value=1), "genai_config"),
    "top_p": (genai("search", "top_p", value=0.1), "genai_config"),
    "beams": (genai("search", "num_beams", value=4), "genai_config"),
    "no repetition": (genai("search", "repetition_penalty", value=2.0), "genai_config"),
    "a least length": (genai("search", "min_length", value=50), "genai_config"),
    "another end token": (genai("model", "eos_token_id", value=[5]), "genai_config"),
    "another first token": (genai("model", "bos_token_id", value=5), "genai_config"),
    "another type": (genai("model", "type", value="llama"), "genai_config"),
    "another output as logits": (genai("model", "decoder", "outputs", "logits", value="risk"), "genai_config"),
    "true instead of one": (genai("search", "num_beams", value=True), "genai_config"),
    "a library": (genai("model", "decoder", "session_options", "x", value="evil.so"), "genai_config"),
    "a setting that nobody knows": (genai("search", "tomorrow", value=1), "genai_config"),
    "a shorter context": (genai("model", "context_length", value=4), "genai_config"),
    "no settings": (lambda folder: (folder / "genai_config.json").unlink(), "genai_config"),
    "another config's preset": (exchange, "presets"),
    "a wider preset": (preset("strict"), "presets"),
    "a preset of nobody's": (preset("mine"), "presets"),
    "a preset in a folder": (preset("deep"), "presets"),
    "no preset": (lambda folder: (folder / "presets/strict.onnx_adapter").unlink(), "presets"),
    "a preset that is none": (lambda folder: (folder / "presets/strict.onnx_adapter").write_bytes(b"x"), "presets"),
    "an end token for all": (other("generation_config.json", eos_token_id=[1, 9]), "side_files"),
    "sampling for transformers": (other("generation_config.json", do_sample=True, temperature=5.0), "side_files"),
    "another architecture": (other("config.json", model_type="gpt2"), "side_files"),
    "code in the config": (other("config.json", auto_map={"AutoModel": "x.Y"}), "side_files"),
    "another tokenizer class": (other("tokenizer_config.json", tokenizer_class="Other"), "side_files"),
    "prompts that nobody encodes so": (
        other("prompts.json", prompts=[{"messages": [{"role": "user", "content": "hi"}], "token_ids": [1, 2]}]),
        "side_files",
    ),
    "another template": (template_of_others, "side_files"),
    "no recorded prompts": (other("prompts.json", prompts=[]), "side_files"),
    "prompts of another tokenizer": (
        other("prompts.json", prompts=[{"messages": [{"role": "user", "content": "word1"}], "token_ids": [1, 5]}]),
        "side_files",
    ),
    "special tokens": (lambda folder: write_json(folder / "special_tokens_map.json", {}), "side_files"),
    "weights for others": (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "other_files"),
}


def test_every_entry_point_of_an_exported_bundle_agrees(world: World) -> None:
    steered, bundle, backbone = world
    assert entry_points(bundle, steered, backbone) == dict.fromkeys(CHECKS, ())


@pytest.mark.parametrize("name", ATTACKS)
def test_what_sends_a_client_elsewhere_is_a_named_difference(world: World, tmp_path: Path, name: str) -> None:
    steered, bundle, backbone = world
    attack, check = ATTACKS[name]
    changed = copy(bundle, tmp_path / "bundle")
    attack(changed)
    fit_manifest(changed)
    found = entry_points(changed, steered, backbone)
    assert found[check], found


def test_threads_documents_and_spaces_are_nobodys_entry_point(world: World, tmp_path: Path) -> None:
    """The control: what changes no decision is no difference."""
    steered, bundle, backbone = world
    changed = copy(bundle, tmp_path / "bundle")
    genai("model", "decoder", "session_options", "intra_op_num_threads", value=3)(changed)
    (changed / "LICENSE").write_text("free")
    (changed / "config.json").write_text(json.dumps(read_json(changed / "config.json")))
    fit_manifest(changed)
    assert not any(entry_points(changed, steered, backbone).values())


@pytest.mark.parametrize("name", ["another graph", "temperature 5", "another config's preset", "an end token for all"])
def test_verify_fails_by_the_name_of_the_check(world: World, tmp_path: Path, name: str) -> None:
    steered, bundle, _ = world
    attack, check = ATTACKS[name]
    changed = copy(bundle, tmp_path / "bundle")
    attack(changed)
    fit_manifest(changed)
    report = verify_bundle(changed, reference=steered, max_new_tokens=2)
    failed = {gate.name: gate for gate in report.gates if gate.verdict is ParityVerdict.FAIL}
    assert check in failed and failed[check].note and report.verdict is ParityVerdict.FAIL
    assert report.first_difference is not None and report.first_difference.place in failed[check].note


@pytest.mark.skipif(not is_installed(), reason="onnxruntime-genai is not installed")
@pytest.mark.parametrize("kind", ["steered", "portable", "plain"])
def test_verify_runs_the_other_client(
    kind: str, world: World, portable_bundle: Path, llama_folder: Path, plain_bundle: tuple[Path, str]
) -> None:
    plain = plain_bundle[0]
    bundle, reference = {
        "steered": (world[1], world[0]),
        "portable": (portable_bundle, llama_folder),
        "plain": (plain, plain.parent / "checkpoint"),
    }[kind]
    report = verify_bundle(bundle, reference=reference, max_new_tokens=3)
    gates = {gate.name: gate for gate in report.gates}
    assert gates["genai_replies"].verdict is ParityVerdict.PASS, gates["genai_replies"].note
    assert report.verdict is ParityVerdict.PASS, report.to_json()["gates"]


@pytest.mark.skipif(not is_installed(), reason="onnxruntime-genai is not installed")
def test_replies_of_the_other_client_that_the_reference_would_not_give_are_found(world: World, tmp_path: Path) -> None:
    """The presets are derived from a config that allows more: config and presets agree with each other only."""
    steered, bundle, _ = world
    changed = copy(bundle, tmp_path / "bundle")
    config = DecodingConfig.read(changed)
    wider = config.model_copy(update={"safety_configs": CONFIGS | {"strict": CONFIGS["fiction"]}})
    wider.write(changed)
    for path in (changed / "presets").iterdir():
        path.unlink()
    write_presets(changed, wider)
    fit_manifest(changed)
    report = verify_bundle(changed, reference=steered, max_new_tokens=2)
    assert {"config", "presets"} <= {gate.name for gate in report.gates if gate.verdict is ParityVerdict.FAIL}


# ---- Nothing that is not finite is dropped.


def outputs(logits: list[list[float]], risk: float = 0.1, safety: float | None = None) -> StepOutputs:
    array = np.array(logits, np.float32)
    margins = np.full(array.shape, 0.1 if safety is None else safety, np.float32)
    return StepOutputs(
        array,
        np.full((len(array), 1), risk, np.float32),
        np.isfinite(array).sum(1),
        margins=lambda: Margins(np.ones_like(margins), margins),
    )


GOOD = [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("order", [1, -1])
def test_a_path_with_a_broken_number_is_infinitely_far(bad: float, order: int) -> None:
    sides = [outputs(GOOD), outputs([[1.0, 2.0, bad], GOOD[1]])][::order]
    assert largest_difference(*sides) == np.inf
    assert largest_difference(outputs(GOOD), outputs(GOOD)) == 0


@pytest.mark.parametrize("order", [1, -1])
def test_a_risk_of_nan_is_reported_whatever_its_place(order: int) -> None:
    parts = [divergence(outputs(GOOD), outputs(GOOD, risk=risk), ties=Ties(0, 0)) for risk in (0.1, float("nan"), 0.1)]
    named = dict(zip("abc"[::order], parts, strict=True))
    gates = {gate.name: gate for gate in judge(dict(sorted(named.items())), (), ParityGates(), Ties(0, 0))}
    assert np.isnan(gates["max_risk_difference"].observed) and "nan" in gates["max_risk_difference"].note
    assert gates["max_risk_difference"].verdict is ParityVerdict.FAIL


def test_a_token_whose_risk_is_not_finite_is_infinitely_far() -> None:
    found = divergence(outputs(GOOD), outputs(GOOD, safety=-np.inf), ties=Ties(0, 0), always_margins=True)
    assert found.token_risk is not None and np.isposinf(found.token_risk).all()


def test_positions_left_out_of_a_mean_are_counted() -> None:
    apart = [[1.0, -np.inf, -np.inf], GOOD[1]], [[-np.inf, 1.0, 1.0], GOOD[1]]
    found = divergence(outputs(apart[0]), outputs(apart[1]), ties=Ties(0, 0))
    gates = {gate.name: gate for gate in judge({"a": found}, (), ParityGates(kl_mean=1.0), Ties(0, 0))}
    assert gates["kl_mean"].note == "without 1 positions where no token is allowed by both"
