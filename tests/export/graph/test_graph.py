"""The graph against torch: the same logits, decisions and replies, in both profiles; refusals by name."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from prosocial.core.errors import InputError, ProsocialError
from prosocial.export import Bundle, export_bundle
from prosocial.export.graph import check_agreement
from prosocial.export.graph.attention import group_query
from prosocial.export.graph.axes import name_axes
from prosocial.export.graph.wrapper import SteeredGraph
from prosocial.export.runtime.session import GraphSession
from prosocial.steering.decoding.controls import Steering, control_arrays
from prosocial.steering.lexicographic import as_controls
from prosocial.steering.steered_model import SteeredModel

REQUESTS = [
    Steering(),
    Steering(preference={"empathy": 1.0}, reward_scale=6.0),
    Steering(harm_threshold=0.3),
    Steering(allowed=["violence"], harm_threshold=0.8),
]


@pytest.fixture(params=["ort", "portable"])
def bundle_folder(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue({"ort": "llama_bundle", "portable": "portable_bundle"}[request.param])
    return folder


@pytest.mark.parametrize("n_rows", [1, 3])
def test_the_graph_decides_as_torch_does(llama_folder: Path, bundle_folder: Path, n_rows: int) -> None:
    steered, session = SteeredModel.open(llama_folder), Bundle.open(bundle_folder, threads=1).session
    ids = torch.randint(200, (n_rows, 9), generator=torch.Generator().manual_seed(n_rows))
    for controls in (None, *(control_arrays(steered.config, REQUESTS).rows([row] * n_rows) for row in range(4))):
        given = steered.default_controls() if controls is None else as_controls(controls)
        with torch.no_grad():
            expected = steered(ids, **given._asdict())
        cache, n_past = session.new_cache(n_rows, 9), 0
        for n_new in (6, 1, 1, 1):
            actual, cache = session.run(ids[:, n_past : n_past + n_new].numpy(), n_past, cache, controls)
            at = slice(n_past, n_past + n_new)
            np.testing.assert_allclose(actual["logits"], expected.logits[:, at].numpy(), atol=1e-4, rtol=0)
            np.testing.assert_allclose(actual["risk"], expected.risk[:, at].numpy(), atol=1e-5)
            np.testing.assert_array_equal(actual["safe_set_size"], expected.safe_set_size[:, at].numpy())
            n_past += n_new
        assert torch.isinf(expected.logits).any()


def test_replies_are_the_same_in_torch_and_onnx_runtime(pico: Any, llama_folder: Path, bundle_folder: Path) -> None:
    steered, bundle = SteeredModel.open(llama_folder), Bundle.open(bundle_folder, threads=1)
    conversations = pico.conversations(18)
    requests = [*[Steering(harm_threshold=0.0)] * 10, *REQUESTS, *REQUESTS]
    for temperature in (0.0, 0.8):
        options = {"steering": requests, "temperature": temperature, "seed": 5}
        expected = steered.generate(conversations, bundle.tokenizer, **options)
        actual = bundle.generate(conversations, **options)
        for left, right in zip(expected, actual, strict=True):
            assert (left.token_ids, left.finish, left.events) == (right.token_ids, right.finish, right.events)
            assert left.min_safe_set_size == right.min_safe_set_size and left.text == right.text
            assert left.max_risk == pytest.approx(right.max_risk, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("preference", [[np.nan, 1.0]]),
        ("allowed", [[1.0, 1.0, 7.0]]),
        ("harm_threshold", [np.nan]),
        ("reward_scale", [-1.0]),
    ],
)
def test_the_graph_fails_closed_by_itself(bundle_folder: Path, name: str, value: Any) -> None:
    """Any client that hands the graph nonsense gets the end token only; ceilings are constants of the graph."""
    session = Bundle.open(bundle_folder, threads=1).session.session
    cache = np.zeros((1, 2, 0, 8), np.float32)
    feed = {
        "input_ids": np.array([[5, 6, 7]]),
        "attention_mask": np.ones((1, 3), np.int64),
        "position_ids": np.array([[0, 1, 2]]),
        **{f"past_key_values.{layer}.{part}": cache for layer in range(2) for part in ("key", "value")},
    }
    logits, size = session.run(["logits", "safe_set_size"], feed | {name: np.array(value, np.float32)})
    assert (np.isfinite(logits) == (np.arange(200) == 1)).all() and (size == 0).all()
    lifted = session.run(
        ["logits"], feed | {"allowed": np.ones((1, 3), np.float32), "harm_threshold": np.ones(1, np.float32)}
    )
    bound = {"allowed": np.array([[1, 0, 0]], np.float32), "harm_threshold": np.array([0.9], np.float32)}
    np.testing.assert_array_equal(lifted[0], session.run(["logits"], feed | bound)[0])
    assert (np.isfinite(session.run(["logits"], feed)[0]).sum(-1) > 1).all()  # control: nothing given is the default


def test_the_file_says_what_genai_expects(bundle_folder: Path) -> None:
    graph = onnx.load(bundle_folder / "model.onnx", load_external_data=False)
    if bundle_folder.name == "portable":  # the checker does not know ONNX Runtime's own operators
        onnx.checker.check_model(str(bundle_folder / "model.onnx"))
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.graph.input, *graph.graph.output)
    }
    assert shapes["input_ids"] == ["batch_size", "sequence_length"]
    assert shapes["past_key_values.1.value"] == ["batch_size", 2, "past_sequence_length", 8]
    assert shapes["present.0.key"] == ["batch_size", 2, "total_sequence_length", 8]
    assert shapes["logits"] == ["batch_size", "logits_length", 200]
    assert {"preference", "allowed", "harm_threshold", "reward_scale"} <= {
        item.name for item in graph.graph.initializer
    }
    domains = {node.domain for node in graph.graph.node}
    assert ("com.microsoft" in domains) == (bundle_folder.name == "llama")


def test_no_path_of_the_machine_is_in_the_graph(bundle_folder: Path) -> None:
    assert b".py" not in (bundle_folder / "model.onnx").read_bytes()


def test_weights_that_changed_after_tracing_are_noticed(llama_folder: Path, llama_bundle: Path) -> None:
    steered = SteeredModel.open(llama_folder)
    assert check_agreement(llama_bundle / "model.onnx", SteeredGraph(steered, "ort")).max_logit_difference < 1e-5
    with torch.no_grad():
        steered.backbone.model.model.layers[1].self_attn.o_proj.weight.mul_(1.05)
    with pytest.raises(ProsocialError, match=r"decisions differ|largest difference"):
        check_agreement(llama_bundle / "model.onnx", SteeredGraph(steered, "ort"))


def test_a_gate_that_changed_after_tracing_is_noticed(llama_folder: Path, llama_bundle: Path) -> None:
    steered = SteeredModel.open(llama_folder)
    with torch.no_grad():
        steered.gate.a += 0.5
    with pytest.raises(ProsocialError, match="decisions differ"):
        check_agreement(llama_bundle / "model.onnx", SteeredGraph(steered, "ort"))


def test_the_model_attends_as_before_after_tracing(pico: Any) -> None:
    model = pico.model("llama")
    ids = torch.randint(200, (1, 5))
    with torch.no_grad():
        before = model(ids).logits
        with group_query(model):
            pass
        assert torch.equal(model(ids).logits, before)


def test_an_axis_that_became_a_constant_is_refused(llama_bundle: Path) -> None:
    import onnx_ir as ir

    model = ir.load(llama_bundle / "model.onnx")
    name_axes(model.graph)
    model.graph.inputs[0].shape = ir.Shape(["batch_size", 3])
    with pytest.raises(InputError, match="axis 1 of input_ids should be dynamic"):
        name_axes(model.graph)


def test_a_graph_without_cache_is_refused(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["logits"])
    out = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([node], "g", [value], [out])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10),
        tmp_path / "m.onnx",
    )
    with pytest.raises(InputError, match="past and present"):
        GraphSession(tmp_path / "m.onnx", shares_cache=True)
    (tmp_path / "m.onnx").write_bytes(b"no graph")
    with pytest.raises(InputError, match="should load in ONNX Runtime"):
        GraphSession(tmp_path / "m.onnx", shares_cache=True)


@pytest.mark.prove
@pytest.mark.parametrize("profile", ["ort", "portable"])
@pytest.mark.parametrize("kind", ["qwen3", "gpt2"])
def test_other_architectures_export_too(pico: Any, tmp_path: Path, kind: str, profile: Any) -> None:
    folder = pico.steered_folder(tmp_path, kind)
    manifest = export_bundle(folder, tmp_path / "bundle", profile=profile)
    assert len(manifest["shared_tensors"]) == 1  # both tie their embeddings
    steered, bundle = SteeredModel.open(folder), Bundle.open(tmp_path / "bundle", threads=1)
    expected = steered.generate(pico.conversations(6), bundle.tokenizer)
    actual = bundle.generate(pico.conversations(6))
    assert [reply.token_ids for reply in actual] == [reply.token_ids for reply in expected]


def test_only_an_exact_transpose_is_shared() -> None:
    import onnx_ir as ir

    from prosocial.export.graph.sharing import share_transposed

    matrix = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
    near = matrix.T.copy()
    near[3, 4] += 1e-6
    arrays = {"table": matrix, "head": matrix.T.copy(), "near": near}
    values = {
        name: ir.Value(name=name, const_value=ir.tensor(array, name=name), shape=ir.Shape(array.shape))
        for name, array in arrays.items()
    }
    x = ir.Value(name="x", shape=ir.Shape([2, 40]), type=ir.TensorType(ir.DataType.FLOAT))
    low = ir.node("MatMul", [x, values["table"]])
    high, other = (ir.node("MatMul", [low.outputs[0], values[name]]) for name in ("head", "near"))
    nodes, outputs = [low, high, other], [high.outputs[0], other.outputs[0]]
    for index, output in enumerate(outputs):
        output.name = f"y{index}"
    graph = ir.Graph([x], outputs, nodes=nodes, initializers=list(values.values()), opset_imports={"": 20})
    assert share_transposed(graph) == ["head"]
    assert [node.op_type for node in graph] == ["Transpose", "MatMul", "MatMul", "MatMul"]
    assert sorted(graph.initializers) == ["near", "table"] and high.inputs[1] is graph[0].outputs[0]


def test_a_layer_that_goes_its_own_way_is_refused_while_tracing(pico: Any, tmp_path: Path) -> None:
    import copy

    from prosocial.export.graph import trace_graph
    from prosocial.export.graph.wrapper import PlainGraph
    from prosocial.steering.backbone import Backbone

    model = pico.model("llama")
    attention = model.model.layers[1].self_attn
    attention.config = copy.deepcopy(attention.config)
    attention.config._attn_implementation = "eager"
    with pytest.raises(InputError, match="use --profile portable"):
        trace_graph(PlainGraph(Backbone(model), "ort").eval(), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("n_kept", [1, 2, 4, 9])
def test_the_last_positions_alone_decide_alike(bundle_folder: Path, n_kept: int) -> None:
    session = Bundle.open(bundle_folder, threads=1).session
    ids = np.random.default_rng(0).integers(2, 200, (2, 4))
    everything, _ = session.run(ids, 0, session.new_cache(2, 5), None)
    last, cache = session.run(ids, 0, session.new_cache(2, 5), None, n_kept)
    for name, values in everything.items():
        assert values.shape[:2] == (2, 4) and last[name].shape[:2] == (2, min(n_kept, 4))
        np.testing.assert_allclose(last[name], values[:, -n_kept:], atol=1e-5)
    step, _ = session.run(ids[:, :1], 4, cache, None, n_kept)
    assert step["logits"].shape[1] == 1
