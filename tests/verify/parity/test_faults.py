"""Ten faults that exports have had, put into a bundle one by one: each is found, and its place is named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from prosocial.core.errors import InputError
from prosocial.verify import ParityVerdict, verify_bundle

from ..parity_world import Array, change_graph, change_weight, copy, make_world

pytestmark = [pytest.mark.prove, pytest.mark.filterwarnings("ignore:.*attention implementation dynamically.*")]
ARCHITECTURES = ("llama 2", "llama 3", "mistral", "qwen3", "gemma 2", "gemma 3", "phi-3", "olmo 2")
Fault = Callable[[Path], None]


def of_shape(*shape: int, change: Callable[[Array, onnx.GraphProto], Array]) -> Fault:
    """Change the first constant of a shape: matrices lose their names on the way into a graph."""

    def fault(folder: Path) -> None:
        def within(graph: onnx.GraphProto) -> None:
            found = next(each for each in graph.initializer if tuple(each.dims) == shape)
            values = change(np.array(onnx.numpy_helper.to_array(found)), graph)
            found.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), found.name))

        change_graph(folder, within)

    return fault


def flip_largest(values: Array, graph: onnx.GraphProto) -> Array:
    at = np.unravel_index(np.abs(values).argmax(), values.shape)
    values[at] *= -1
    return values


def tied(values: Array, graph: onnx.GraphProto) -> Array:
    """Take the input embedding for the output embedding."""
    return onnx.numpy_helper.to_array(next(each for each in graph.initializer if "embed_tokens" in each.name)).T


def int8(values: Array) -> Array:
    scale = np.abs(values).max() / 127
    return np.round(values / scale) * scale


def stale_cache(folder: Path) -> None:
    """Give layer 0's keys out as layer 1's."""

    def within(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            for names in (node.input, node.output):
                names[:] = ["fresh" if name == "present.1.key" else name for name in names]
        graph.node.append(onnx.helper.make_node("Identity", ["present.0.key"], ["present.1.key"]))

    change_graph(folder, within)


def swap_preferences(values: Array, graph: onnx.GraphProto) -> Array:
    return np.concatenate([values[:, 4:], values[:, :4]], axis=1)


FAULTS: dict[str, tuple[Fault, str]] = {
    "a scale off by 1 %": (
        change_weight("layers.1.post_attention_layernorm.weight", lambda values: 1.01 * values),
        "model.layers.1.post_attention_layernorm (after 1.value",
    ),
    "one layer's bias": (
        change_weight("layers.1.self_attn.v_proj.bias", lambda values: values + 0.02),
        "1.value (after 1.key",
    ),
    "RoPE base": (change_weight("rotary_emb.inv_freq", lambda values: values**1.02), "0.key"),
    "one flipped weight": (
        of_shape(96, 64, change=flip_largest),
        "model.layers.1.input_layernorm (after model.layers.0.post_attention_layernorm",
    ),
    "tied head": (of_shape(64, 200, change=tied), "output embedding"),
    "int8 on the gate only": (change_weight("steered.gate.U", int8), "gate (risk of tokens)"),
    "threshold off by 0.01": (
        change_weight("harm_threshold", lambda values: values + 0.01),
        "default of harm_threshold",
    ),
    "swapped preference order": (of_shape(4, 8, change=swap_preferences), "reward head or preference"),
    "stale cache": (stale_cache, "1.key"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_world(tmp_path_factory.mktemp("qwen2"), "qwen2")


def test_without_a_fault_parity_passes(world: tuple[Path, Path]) -> None:
    report = verify_bundle(world[1], reference=world[0], max_new_tokens=8)
    assert report.verdict is ParityVerdict.PASS, report.to_json()["gates"]
    assert report.first_difference is None


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_its_place_named(name: str, world: tuple[Path, Path], tmp_path: Path) -> None:
    fault, place = FAULTS[name]
    bundle = copy(world[1], tmp_path / "bundle")
    fault(bundle)
    report = verify_bundle(bundle, reference=world[0], max_new_tokens=8)
    assert report.verdict is ParityVerdict.FAIL, report.to_json()["gates"]
    assert str(report.first_difference).startswith(place), report.first_difference


def test_a_wrong_chat_template_is_refused(world: tuple[Path, Path], tmp_path: Path) -> None:
    bundle = copy(world[1], tmp_path / "bundle")
    text = (bundle / "chat_template.jinja").read_text()
    (bundle / "chat_template.jinja").write_text(text.replace("assistant", "user"))
    change_graph(bundle, lambda graph: None)  # its manifest fits
    with pytest.raises(InputError, match="template"):
        verify_bundle(bundle, reference=world[0], max_new_tokens=8)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bundles_of_many_architectures_pass(architecture: str, tmp_path: Path) -> None:
    steered, bundle = make_world(tmp_path, architecture, "ort")
    report = verify_bundle(bundle, reference=steered, max_new_tokens=8)
    assert report.verdict is ParityVerdict.PASS, report.to_json()["gates"]
    assert len(report.to_json()["settings"]) == 6
