"""Graphs in float16: one dtype at each node, finite numbers, and a refusal by name where that cannot be."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from prosocial.core.errors import InputError, ProsocialError
from prosocial.export.graph.agreement import check_agreement
from prosocial.export.graph.dtypes import check_dtypes
from prosocial.export.graph.lowering import Departure, compare_graphs, lower_precision
from prosocial.export.graph.norms import unify_norms
from prosocial.export.graph.trace import trace_graph
from prosocial.export.graph.wrapper import PlainGraph
from prosocial.export.runtime.session import GraphSession
from prosocial.steering.backbone import Backbone

from ...architectures import CONFIGS, random_model
from .test_architectures import SUPPORTED

LIGHT = {("gemma 3", "ort"), ("gemma 3", "portable")}  # norms alone, and a norm with the sum before it
FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16

pytestmark = pytest.mark.filterwarnings("ignore:.*attention implementation dynamically.*")


def lowered(model: Any, profile: Any, folder: Path, precision: Any = "fp16") -> Departure:
    graph = PlainGraph(Backbone(model), profile).eval()
    return lower_precision(graph, trace_graph(graph, folder).path, precision)


def value(name: str, dtype: ir.DataType, array: Any = None) -> ir.Value:
    tensor = None if array is None else ir.tensor(np.array(array, dtype.numpy()))
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape([1, 2, 4]), const_value=tensor)


def model_of(nodes: list[ir.Node], inputs: list[ir.Value], initializers: list[ir.Value]) -> ir.Model:
    graph = ir.Graph(
        inputs,
        nodes[-1].outputs[:1],
        nodes=nodes,
        initializers=initializers,
        opset_imports={"": 20, "com.microsoft": 1},
    )
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        pytest.param(name, profile, marks=() if (name, profile) in LIGHT else pytest.mark.prove)
        for name in [*SUPPORTED, "gpt-oss", "bloom"]
        for profile in ("ort", "portable")
        if name in SUPPORTED or profile == "portable"
    ],
)
def test_every_supported_architecture_has_a_graph_in_float16(tmp_path: Path, name: str, profile: Any) -> None:
    departure = lowered(random_model(name), profile, tmp_path)
    assert 0 < departure.median_logit_difference < 5e-3 and departure.n_flips == 0
    assert (departure.n_rerouted, departure.n_routings) == (0, 480 if "num_experts_per_tok" in CONFIGS[name][1] else 0)
    inputs = GraphSession(tmp_path / "model.onnx", shares_cache=profile == "ort").session.get_inputs()
    assert {one.type for one in inputs if "past" in one.name} == {"tensor(float16)"}


def test_a_mixed_norm_computes_in_the_wider_dtype() -> None:
    """The sum stays in float16, the norm reads it as float32, and what read either output still gets it."""
    states, skip, weight = value("states", HALF), value("skip", HALF), value("weight", FLOAT, [1.0001, 1, 1, 1])
    weight.shape = ir.Shape([4])
    fused = ir.node("SkipSimplifiedLayerNormalization", [states, skip, weight], {"epsilon": 1e-6}, num_outputs=4)
    fused.domain = "com.microsoft"
    for output, dtype in zip(fused.outputs, (FLOAT, FLOAT, FLOAT, HALF), strict=True):
        output.type, output.shape = ir.TensorType(dtype), states.shape
    narrow = ir.node("Cast", [fused.outputs[0]], {"to": HALF.value})
    last = ir.node("Add", [narrow.outputs[0], fused.outputs[3]])
    last.outputs[0].type, last.outputs[0].shape = ir.TensorType(HALF), states.shape
    last.outputs[0].name = "result"
    model = model_of([fused, narrow, last], [states, skip], [weight])
    with pytest.raises(
        InputError, match=r"SkipSimplifiedLayerNormalization.*skip tensor\(float16\), weight tensor\(float\)"
    ):
        check_dtypes(model)
    unify_norms(model.graph)
    check_dtypes(model)
    assert [node.op_type for node in model.graph] == ["Add", "Cast", "SimplifiedLayerNormalization", "Cast", "Add"]
    given = np.array([[[1, 2, 3, 4], [300, 0, 0, 1]]], np.float16)
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {"states": given, "skip": given})
    total = (given + given).astype(np.float64)
    expected = total / np.sqrt((total**2).mean(-1, keepdims=True) + 1e-6) * [1.0001, 1, 1, 1] + total
    np.testing.assert_allclose(actual, expected, rtol=2e-3)
    unify_norms(model.graph)
    assert len(list(model.graph)) == 5


@pytest.mark.parametrize(
    ("node", "declared", "match"),
    [
        ("Mul", HALF, r"node \w+ \(Mul\).*left tensor\(float16\), right tensor\(float\).*use the other profile"),
        ("MatMul", FLOAT, r"\(MatMul\).*left tensor\(float16\), right tensor\(float\)"),
        ("Neg", FLOAT, r"\(Neg\).*inputs left tensor\(float16\) and the outputs result tensor\(float\)"),
        ("Not", HALF, r"\(Not\).*inputs left tensor\(float16\)"),
        ("Cast", HALF, r"\(Cast\).*outputs result tensor\(float16\)"),
    ],
)
def test_a_dtype_that_does_not_fit_is_refused_by_node_and_tensors(node: str, declared: ir.DataType, match: str) -> None:
    left, right = value("left", HALF), value("right", FLOAT)
    inputs = [left, right] if node in ("Mul", "MatMul") else [left]
    only = ir.node(node, inputs, {"to": FLOAT.value} if node == "Cast" else {})
    only.outputs[0].name, only.outputs[0].type = "result", ir.TensorType(declared)
    with pytest.raises(InputError, match=match) as refused:
        check_dtypes(model_of([only], [left, right], []))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("factor", [2e4, 2e3])
def test_activations_beyond_float16_are_refused_by_module(tmp_path: Path, factor: float) -> None:
    model = random_model("llama 3")
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.mul_(factor)
    if factor == 2e3:  # only what is added after the last layer's product is too large
        with torch.no_grad():
            model.model.layers[0].mlp.down_proj.weight.div_(factor)
            model.model.layers[1].mlp.down_proj.weight.mul_(10)
    with pytest.raises(InputError, match=r"activations of LlamaForCausalLM.*65,504.*after model.layers.\d") as refused:
        lowered(model, "ort", tmp_path)
    assert "\n" not in str(refused.value) and "--precision fp32" in str(refused.value)


def test_a_weight_beyond_float16_is_refused_by_name(tmp_path: Path) -> None:
    model = random_model("llama 3")
    with torch.no_grad():
        model.model.embed_tokens.weight[7, 3] = 1e5  # of a token that random prompts need not hold
    with pytest.raises(InputError, match=r"weights of LlamaForCausalLM.*larger ones in model.embed_tokens.weight"):
        lowered(model, "ort", tmp_path)


def test_a_graph_with_infinite_logits_is_never_compared_as_equal(tmp_path: Path) -> None:
    """What is not finite was dropped from the comparison before, so that nothing but infinities differed by 0.0."""
    graph = PlainGraph(Backbone(random_model("gpt-2")), "ort").eval()
    source = trace_graph(graph, tmp_path).path
    broken = ir.load(source)
    (tmp_path / "broken").mkdir()
    for weight in broken.graph.initializers.values():
        if weight.dtype == FLOAT and weight.const_value is not None and weight.const_value.size > 1000:
            weight.const_value = ir.tensor(weight.const_value.numpy() * 1e30, name=weight.name)
    path = tmp_path / "broken" / "model.onnx"
    ir.save(broken, path, external_data="model.onnx.data")
    with pytest.raises(ProsocialError, match=r"should give finite numbers, \d+ of \d+ in logits on random tokens"):
        compare_graphs(source, path)
    assert sorted(one.name for one in path.parent.iterdir()) == ["model.onnx", "model.onnx.data"]


def test_a_model_with_infinite_logits_is_no_agreement(tmp_path: Path) -> None:
    """torch and the graph both give infinity: their difference is not 0."""
    model = random_model("gpt-2")
    graph = PlainGraph(Backbone(model), "ort").eval()
    with torch.no_grad():
        model.transformer.wte.weight[5] = 3e38
    traced = trace_graph(graph, tmp_path)
    with pytest.raises(InputError, match=r"GPT2LMHeadModel should give finite logits.*of \d+ are infinite or NaN"):
        check_agreement(traced.path, graph)
