"""Presets for clients of the raw graph, in ONNX Runtime itself and in onnxruntime-genai where that is installed."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from prosocial.core.files import read_json
from prosocial.export import Bundle, export_bundle
from prosocial.export.presets import write_presets
from prosocial.steering.configs import SafetyConfig
from prosocial.steering.decoding.controls import Steering, control_arrays, with_safety_text

CLIENT = Path(__file__).with_name("genai_client.py")
CONFIGS = {
    "fiction": SafetyConfig(text="word7 word8", allowed=["violence"], threshold=0.7),
    "strict": SafetyConfig(threshold=0.0),
    "tight": SafetyConfig(threshold=0.46),
    "warm": SafetyConfig(preference={"empathy": 1.0}),
}
N_NEW = 12
HOSTILE: dict[str, dict[str, Any]] = {
    "a category twice over": {"allowed": [[2.0, 2.0, 2.0]]},
    "a threshold of five": {"harm_threshold": [5.0]},
    "a threshold that is not a number": {"harm_threshold": [np.nan]},
    "a preference that is not a number": {"preference": [[np.nan, 1.0]]},
    "a reward scale without end": {"reward_scale": [np.inf]},
}
MOST = {"allowed": [[1.0, 1.0, 1.0]], "harm_threshold": [1.0]}
BOUND = {"allowed": [[1.0, 0.0, 0.0]], "harm_threshold": [0.9]}


@pytest.fixture(scope="module")
def bundle(pico: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("presets")
    export_bundle(pico.steered_folder(folder, safety_configs=CONFIGS), folder / "bundle")
    return Bundle.open(folder / "bundle", threads=1)


def write_adapter(path: Path, values: dict[str, Any]) -> Path:
    adapter = onnxruntime.AdapterFormat()
    adapter.set_adapter_version(1)
    adapter.set_model_version(1)
    arrays = {name: np.array(value, np.float32) for name, value in values.items()}
    adapter.set_parameters({name: onnxruntime.OrtValue.ortvalue_from_numpy(value) for name, value in arrays.items()})
    adapter.export_adapter(str(path))
    return path


def decided(bundle: Bundle, preset: Path | None = None, **inputs: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Logits and safe set sizes of ONNX Runtime itself for one prompt, with an adapter or with inputs."""
    options, ids = onnxruntime.RunOptions(), np.array([[5, 6, 7, 9]])
    adapter = onnxruntime.LoraAdapter()
    if preset is not None:
        adapter.Load(str(preset))
        options.add_active_adapter(adapter)
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": np.arange(4)[None]}
    feed |= dict.fromkeys(bundle.session.past_names, np.zeros((1, 2, 0, 8), np.float32))
    feed |= {name: np.array(value, np.float32) for name, value in inputs.items()}
    logits, size = bundle.session.session.run(["logits", "safe_set_size"], feed, options)
    return logits, size


def test_there_is_a_preset_for_every_safety_config_and_the_manifest_lists_it(bundle: Bundle, tmp_path: Path) -> None:
    listed = {name for name in read_json(bundle.folder / "manifest.json")["files"] if name.startswith("presets/")}
    assert listed == {f"presets/{name}.onnx_adapter" for name in CONFIGS}
    assert bundle.config is not None
    for again in write_presets(tmp_path, bundle.config):
        first = bundle.folder / "presets" / again.name
        assert again.read_bytes() == first.read_bytes() and first.stat().st_size < 1024


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_a_preset_is_its_safety_config(bundle: Bundle, name: str) -> None:
    assert bundle.config is not None
    controls = control_arrays(bundle.config, [Steering(safety_config=name)]).as_inputs()
    actual, expected = decided(bundle, bundle.folder / f"presets/{name}.onnx_adapter"), decided(bundle, **controls)
    np.testing.assert_array_equal(actual[0], expected[0])
    np.testing.assert_array_equal(actual[1], expected[1])
    assert not np.array_equal(actual[0], decided(bundle)[0])  # the control: it is not the default


@pytest.mark.parametrize("what", sorted(HOSTILE))
def test_a_hand_made_preset_out_of_range_closes_the_gate(bundle: Bundle, tmp_path: Path, what: str) -> None:
    logits, size = decided(bundle, write_adapter(tmp_path / "x.onnx_adapter", HOSTILE[what]))
    assert (np.isfinite(logits) == (np.arange(200) == 1)).all() and (size == 0).all()


def test_a_hand_made_preset_lifts_no_ceiling(bundle: Bundle, tmp_path: Path) -> None:
    most, bound = (write_adapter(tmp_path / f"{at}", values) for at, values in enumerate((MOST, BOUND)))
    np.testing.assert_array_equal(decided(bundle, most)[0], decided(bundle, bound)[0])
    assert (decided(bundle, most)[1] > decided(bundle)[1]).any()  # the control: it is heard


def run_genai(folder: Path, requests: list[dict[str, Any]]) -> list[list[int]]:
    command, given = [sys.executable, str(CLIENT), str(folder)], json.dumps(requests)
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[list[int]] = json.loads(done.stdout)
    return found


needs_genai = pytest.mark.skipif(find_spec("onnxruntime_genai") is None, reason="onnxruntime-genai is not installed")


@needs_genai
def test_genai_gives_our_tokens_by_default_and_under_every_preset(pico: Any, bundle: Bundle) -> None:
    """Where nothing was taken back the tokens are the same; where nothing is safe it stops at the end token there."""
    assert bundle.config is not None
    cases: list[tuple[dict[str, Any], Any]] = []
    for name in (None, *sorted(CONFIGS)):
        request = Steering(safety_config=name)
        preset = None if name is None else str(bundle.folder / f"presets/{name}.onnx_adapter")
        conversations = pico.conversations(12)
        for messages, ours in zip(
            conversations, bundle.generate(conversations, steering=request, max_new_tokens=N_NEW), strict=True
        ):
            ids = bundle.tokenizer.encode_chat(with_safety_text(bundle.config, request, messages))
            cases.append(({"ids": ids, "max_new_tokens": N_NEW, "preset": preset}, ours))
    found = run_genai(bundle.folder, [request for request, _ in cases])
    n_equal = n_stopped = 0
    for tokens, (_, ours) in zip(found, cases, strict=True):
        if not ours.events:
            assert tokens == list(ours.token_ids)
            n_equal += 1
        else:
            assert len(tokens) == ours.events[0].step
            n_stopped += 1
    assert n_equal > 30 and n_stopped > 12


@needs_genai
def test_genai_cannot_lift_a_ceiling_with_a_hand_made_preset(bundle: Bundle, tmp_path: Path) -> None:
    presets = [write_adapter(tmp_path / f"{at}.onnx_adapter", values) for at, values in enumerate(HOSTILE.values())]
    presets += [write_adapter(tmp_path / name, values) for name, values in (("most", MOST), ("bound", BOUND))]
    ids = bundle.tokenizer.encode_chat([{"role": "user", "content": "word5 word9"}])
    *closed, most, bound = run_genai(
        bundle.folder, [{"ids": ids, "max_new_tokens": N_NEW, "preset": str(preset)} for preset in presets]
    )
    assert closed == [[]] * len(HOSTILE)
    assert most == bound and len(most) > 1
