"""Bad input to export and to a bundle: one clear line each, and what gets past the line is closed by the gate."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from prosocial.cli.main import error_line
from prosocial.core.errors import ArtefactError, ProsocialError
from prosocial.core.files import read_json
from prosocial.export import Bundle, export_bundle, write_manifest
from prosocial.steering.backbone import Backbone
from prosocial.steering.steered_model import SteeredModel


def again(folder: Path) -> None:
    """Make the manifest fit what lies there, as whoever changed it on purpose would."""
    facts = {key: value for key, value in read_json(folder / "manifest.json").items() if key not in ("files", "schema")}
    write_manifest(folder, facts=facts)


def other_operator(folder: Path) -> None:
    graph = onnx.load(folder / "model.onnx", load_external_data=False)
    for node in graph.graph.node:
        if node.op_type == "GroupQueryAttention":
            node.op_type = "GroupQueryAttentionOfTomorrow"
    onnx.save(graph, folder / "model.onnx")


def other_place(folder: Path) -> None:
    graph = onnx.load(folder / "model.onnx", load_external_data=False)
    for tensor in graph.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../secret.data"
    onnx.save(graph, folder / "model.onnx")
    shutil.copy(folder / "model.onnx.data", folder.parent / "secret.data")


def truncate(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:-4000])

    return change


def manifest(key: str, value: Any) -> Callable[[Path], None]:
    """Set one value of `manifest.json`."""

    def change(folder: Path) -> None:
        data = read_json(folder / "manifest.json")
        (folder / "manifest.json").write_text(json.dumps(data | {key: value}))

    return change


def genai(*keys: str, value: Any) -> Callable[[Path], None]:
    """Set one value of `genai_config.json`."""

    def change(folder: Path) -> None:
        data = read_json(folder / "genai_config.json")
        place = data
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        (folder / "genai_config.json").write_text(json.dumps(data), encoding="utf-8")

    return change


OPTIONS = ("model", "decoder", "session_options")
# What was done to the bundle, whether its manifest was made to fit, and what the one line says.
CASES: dict[str, tuple[Callable[[Path], Any], bool, str]] = {
    "an operator that this onnxruntime lacks": (
        other_operator,
        True,
        "lacks one.*AttentionOfTomorrow.*portable",
    ),
    "a truncated data file": (truncate("model.onnx.data"), False, "changed: model.onnx.data"),
    "a truncated data file that the manifest fits": (truncate("model.onnx.data"), True, "should load in ONNX Runtime"),
    "a truncated graph": (truncate("model.onnx"), False, "changed: model.onnx:"),
    "a truncated graph that the manifest fits": (truncate("model.onnx"), True, "should load in ONNX Runtime"),
    "no data file": (lambda folder: (folder / "model.onnx.data").unlink(), False, "missing: model.onnx.data"),
    "no data file in the manifest either": (
        lambda folder: (folder / "model.onnx.data").unlink(),
        True,
        "should load in ONNX Runtime.*does not exist",
    ),
    "weights from outside the folder": (other_place, True, "should load in ONNX Runtime"),
    "no preset": (lambda folder: (folder / "presets/fiction.onnx_adapter").unlink(), False, "missing: presets/fiction"),
    "a preset of nobody's": (
        lambda folder: (folder / "presets/mine.onnx_adapter").write_bytes(b"x"),
        False,
        "not listed: presets/mine",
    ),
    "a library of operators": (
        genai(*OPTIONS, "custom_ops_library", value="evil.so"),
        True,
        "found custom_ops_library",
    ),
    "a provider's library": (
        genai(*OPTIONS, "provider_options", value=[{"evil": {"library": "evil.so"}}]),
        True,
        "found provider_options",
    ),
    "entries of a session's config": (
        genai(*OPTIONS, "config_entries", value={"session.load_model_format": "ORT"}),
        True,
        "found config_entries",
    ),
    "a profile written somewhere": (
        genai(*OPTIONS, "enable_profiling", value="profile.json"),
        True,
        "found enable_profiling",
    ),
    "a thread count that is text": (genai(*OPTIONS, "intra_op_num_threads", value="9"), True, "numbers from 0 to 1024"),
    "a precision that is no name": (manifest("precision", value={"fp32": 1}), True, "should say its precision"),
    "options in a list": (genai(*OPTIONS, value=[]), True, "object at session_options, found list"),
    "a decoder that is a name": (genai("model", "decoder", value="x"), True, "object at decoder, found str"),
    "a model that is none": (genai("model", value=None), True, "object at model, found NoneType"),
}


@pytest.mark.parametrize("what", CASES)
def test_a_bundle_that_is_not_right_is_refused_in_one_line(llama_bundle: Path, tmp_path: Path, what: str) -> None:
    change, fits, said = CASES[what]
    folder = tmp_path / "bundle"
    shutil.copytree(llama_bundle, folder)
    change(folder)
    if fits:
        again(folder)
    with pytest.raises(ArtefactError, match=said) as caught:
        Bundle.open(folder, threads=1)
    line = error_line(caught.value)
    assert line and "\n" not in line and len(line) < 1000


def test_weights_of_nan_in_a_bundle_close_its_gate(pico: Any, llama_bundle: Path, tmp_path: Path) -> None:
    """Nothing but the fallback comes out of a graph whose numbers are broken, whatever the manifest says."""
    folder = tmp_path / "bundle"
    shutil.copytree(llama_bundle, folder)
    data = np.fromfile(folder / "model.onnx.data", np.float32)
    np.full_like(data, np.nan).tofile(folder / "model.onnx.data")
    again(folder)
    for reply in Bundle.open(folder, threads=1).generate(pico.conversations(3)):
        assert (reply.finish, reply.text, reply.min_safe_set_size) == ("fallback", "I cannot help with that.", 0)


def test_a_model_with_nan_in_its_weights_is_named_before_anything_is_traced(pico: Any) -> None:
    model = pico.model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = torch.nan
    with pytest.raises(ProsocialError, match=r"finite logits.*NaN or infinity in model\.layers\.1\.mlp\.up_proj"):
        Backbone(model)


@pytest.mark.parametrize("part", ["head", "gate"])
@pytest.mark.parametrize("fault", ["another checkpoint's", "not finite"])
def test_a_head_or_gate_that_does_not_belong_is_refused(
    llama_folder: Path, tmp_path: Path, part: str, fault: str
) -> None:
    folder = tmp_path / "steered"
    shutil.copytree(llama_folder, folder)
    if fault == "not finite":
        tensors = load_file(folder / f"{part}.safetensors")
        next(iter(tensors.values())).view(-1)[0] = torch.nan
        save_file(tensors, folder / f"{part}.safetensors")
        said = rf"{part}\.safetensors should hold finite numbers"
    else:
        config = read_json(folder / f"{part}_config.json")
        config["checkpoint_fingerprint"] = "0" * 64
        (folder / f"{part}_config.json").write_text(json.dumps(config), encoding="utf-8")
        said = f"the {part} in .*{'0' * 8}"
    for refuse in (lambda: export_bundle(folder, tmp_path / "out"), lambda: SteeredModel.open(folder)):
        with pytest.raises(ProsocialError, match=said) as caught:
            refuse()
        assert "\n" not in str(error_line(caught.value))
    assert not (tmp_path / "out").exists()
