"""Lower precisions: what is quantised, what stays exact, what is stored once, and the rule that holds in each."""

import logging
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM

from prosocial.core.errors import ArtefactError, InputError
from prosocial.core.files import read_json
from prosocial.export import Bundle, export_bundle, write_manifest
from prosocial.export.bundle_files.precision import departure_sentence
from prosocial.export.graph import lowering, trace_graph
from prosocial.export.graph.lowering import compare_graphs
from prosocial.export.graph.quantisation import BLOCK, quantise_graph
from prosocial.export.graph.routing import nodes_before, own_logits, routers
from prosocial.export.graph.wrapper import PlainGraph
from prosocial.steering.backbone import Backbone
from prosocial.steering.decoding.controls import Steering

from ...architectures import random_model

# Each is an export of its own.
LOWER = ("int8", *(pytest.param(name, marks=pytest.mark.prove) for name in ("fp16", "int4")))
Arrays = dict[str, NDArray[Any]]


@pytest.fixture(scope="module", params=LOWER)
def lower(
    request: pytest.FixtureRequest, llama_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Path]:
    """A precision and the bundle in it."""
    folder, handlers = tmp_path_factory.mktemp("lower") / request.param, list(logging.getLogger().handlers)
    export_bundle(llama_folder, folder, precision=request.param)
    assert logging.getLogger().handlers == handlers  # the quantiser of onnxruntime sets one as it is imported
    return request.param, folder


def stored(path: Path) -> Arrays:
    """Initializers by name."""
    return {name: value.const_value.numpy() for name, value in ir.load(path).graph.initializers.items()}


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in ir.load(path).graph)


def dequantised(blocks: NDArray[np.uint8], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows [N, K] of the matrix [K, N] that blocks [N, K / 32, bytes] stand for, by the operator's documentation."""
    if blocks.shape[-1] == BLOCK // 2:
        blocks = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*blocks.shape[:-1], BLOCK)
        middle = 8
    else:
        middle = 128
    values = (blocks.astype(np.float32) - middle) * scales[..., None]
    return values.reshape(len(blocks), -1)


def test_every_file_of_a_bundle_names_its_precision(lower: tuple[str, Path]) -> None:
    precision, folder = lower
    assert read_json(folder / "manifest.json")["precision"] == precision
    assert read_json(folder / "genai_config.json")["precision"] == precision
    card = (folder / "README.md").read_text(encoding="utf-8")
    parity = read_json(folder / "parity.json")
    assert (
        f"Precision `{precision}`" in card and departure_sentence(parity) in card and parity["precision_note"] in card
    )
    assert ("do not hold on a GPU" in card) == (precision == "fp16")
    assert parity["precision"] == precision and parity["max_logit_difference"] < 1e-4  # of the graph in float32
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_fewer_bits_weigh_less_and_depart_further(llama_bundle: Path, lower: tuple[str, Path]) -> None:
    precision, folder = lower
    least, most, weight = {"fp16": (0, 5e-3, 0.6), "int8": (5e-3, 0.1, 0.5), "int4": (0.1, 1.0, 0.4)}[precision]
    found = read_json(folder / "parity.json")["departure_from_fp32"]
    assert least < found["max_logit_difference"] < most
    assert found["n_decisions"] > 400 and found["n_flips"] < found["n_decisions"]
    sizes = [(one / "model.onnx.data").stat().st_size for one in (llama_bundle, folder)]
    assert sizes[1] < weight * sizes[0]


def test_the_departure_does_not_depend_on_how_many_rows_run_at_once(
    llama_bundle: Path, lower: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lowering, "MOST_LOGITS", 1)
    one_by_one = asdict(compare_graphs(llama_bundle / "model.onnx", lower[1] / "model.onnx"))
    assert one_by_one == pytest.approx(read_json(lower[1] / "parity.json")["departure_from_fp32"], rel=1e-3)


def test_replies_and_cache_run_in_every_precision(pico: Any, lower: tuple[str, Path]) -> None:
    precision, folder = lower
    bundle = Bundle.open(folder, threads=1)
    types = {value.type for value in bundle.session.session.get_inputs() if "past" in value.name}
    assert types == {"tensor(float16)" if precision == "fp16" else "tensor(float)"}
    requests = [Steering(), Steering(preference={"empathy": 1.0}), Steering(harm_threshold=0.0)]
    together = bundle.generate(pico.conversations(3), steering=requests)
    alone = [bundle.generate([pico.conversations(3)[at]], steering=requests[at])[0] for at in range(3)]
    assert [reply.token_ids for reply in together] == [reply.token_ids for reply in alone]
    assert together[0].token_ids and together[2].finish == "fallback"


def test_head_gate_and_table_stay_exact(llama_bundle: Path, lower: tuple[str, Path]) -> None:
    """Every float that the rule reads is in the lower graph bit for bit, and none of its products is quantised."""
    graph = ir.load(llama_bundle / "model.onnx").graph
    nodes = list(graph)
    start = max(at for at, node in enumerate(nodes) if node.op_type == "TopK")
    rule = [value.const_value for node in nodes[start:] for value in node.inputs if value and value.const_value]
    expected = [tensor.numpy() for tensor in rule if tensor.dtype == ir.DataType.FLOAT]
    assert sum(array.size for array in expected) > 200 * 4 * 2
    actual = {(array.shape, array.dtype.str, array.tobytes()) for array in stored_of(lower[1])}
    for array in expected:
        assert (array.shape, array.dtype.str, array.tobytes()) in actual
    others = list(ir.load(lower[1] / "model.onnx").graph)
    after = others[max(at for at, node in enumerate(others) if node.op_type == "TopK") :]
    assert Counter(node.op_type for node in after) == Counter(node.op_type for node in nodes[start:])


def stored_of(folder: Path) -> list[NDArray[Any]]:
    graph = ir.load(folder / "model.onnx").graph
    inside = [node.outputs[0].const_value for node in graph if node.op_type == "Constant"]
    values = [value.const_value for value in graph.initializers.values()]
    return [tensor.numpy() for tensor in (*values, *inside) if tensor is not None]


@pytest.mark.parametrize("bits", [8, 4])
def test_a_weight_is_its_block_times_its_scale(llama_bundle: Path, tmp_path: Path, bits: int) -> None:
    """Rounding moves a weight by half a step of its block, at the clipped end of the range by one."""
    quantise_graph(llama_bundle / "model.onnx", tmp_path, bits=bits)
    before, after = stored(llama_bundle / "model.onnx"), stored(tmp_path / "model.onnx")
    names = [name.removesuffix(".scales") for name in after if name.endswith(".scales")]
    assert len(names) == 9  # two layers of attention in and out, gate with up, down; and the output embedding
    assert operators(tmp_path / "model.onnx")["MatMulNBits"] == 9
    for name in names:
        scales, last = after[f"{name}.scales"], name == names[-1]
        matrix = before[name]
        rows = dequantised(after[f"{name}.q{8 if last else bits}"], scales)[:, : len(matrix)]
        steps = np.abs(scales).repeat(BLOCK, axis=1)[:, : len(matrix)]
        assert (np.abs(rows - matrix.T) <= 0.51 * steps).mean() > 0.98  # the end of the range is clipped at one side
        assert (np.abs(rows - matrix.T) <= 1.01 * steps).all()
    assert after[f"{names[-1]}.q8"].shape == (200, 1, 32)


def test_tied_embeddings_are_one_matrix_after_quantising_too(plain_bundle: tuple[Path, str], tmp_path: Path) -> None:
    source = plain_bundle[0] / "model.onnx"
    path = quantise_graph(source, tmp_path, bits=4)
    before, after = stored(source), stored(path)
    embedding = next(array for array in before.values() if array.shape == (200, 32))
    assert not [
        name for name, array in after.items() if array.dtype == np.float32 and array.shape in ((200, 32), (32, 200))
    ]
    blocks = [value for value in ir.load(path).graph.initializers.values() if tuple(value.shape or ()) == (200, 1, 32)]
    assert [sorted(use.node.op_type for use in value.uses()) for value in blocks] == [
        ["GatherBlockQuantized", "MatMulNBits"]
    ]
    name = str(blocks[0].name).removesuffix(".q8")
    rows = dequantised(after[f"{name}.q8"], after[f"{name}.scales"])
    assert np.abs(rows - embedding).max() < np.abs(embedding).max() / 100
    assert operators(path)["MatMulNBits"] == 9 and operators(path)["Gemm"] == 0  # with the biases of GPT-2 beside
    assert 1e-3 < compare_graphs(source, path).max_logit_difference < 0.5


def test_an_embedding_of_no_whole_blocks_stays_in_float32(tmp_path: Path) -> None:
    sizes = {"hidden_size": 40, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 5}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=90, tie_word_embeddings=True, **sizes)).eval()
    source = trace_graph(PlainGraph(Backbone(model), "ort").eval(), tmp_path).path
    (tmp_path / "int8").mkdir()
    path = quantise_graph(source, tmp_path / "int8", bits=8)
    assert operators(path)["GatherBlockQuantized"] == 0 and operators(path)["MatMulNBits"] == 5
    assert compare_graphs(source, path).max_logit_difference < 0.02


@pytest.mark.parametrize("name", ["mixtral", pytest.param("qwen3 moe", marks=pytest.mark.prove)])
def test_experts_are_quantised_one_by_one_and_routers_are_not(tmp_path: Path, name: str) -> None:
    """The routers keep their bits; noise before them still moves some choices, which is counted."""
    source = trace_graph(PlainGraph(Backbone(random_model(name)), "ort").eval(), tmp_path).path
    (tmp_path / "int8").mkdir()
    path = quantise_graph(source, tmp_path / "int8", bits=8)
    assert not [name for name, array in stored(path).items() if array.dtype == np.float32 and array.ndim == 3]
    before, after = (ir.load(one).graph for one in (source, path))
    kept = [routers(nodes_before(graph, own_logits(graph))) for graph in (before, after)]
    matrices = [
        sorted(
            value.const_value.numpy().tobytes()
            for node in nodes
            for value in node.inputs
            if value and value.const_value
        )
        for nodes in kept
    ]
    assert len(kept[1]) == 2 and matrices[0] == matrices[1] and matrices[0]
    assert not {node.op_type for node in kept[1]} & {"MatMulNBits"}
    departure = compare_graphs(source, path)
    assert departure.median_logit_difference < 0.1 and departure.n_routings == 2 * departure.n_positions
    assert departure.n_rerouted < departure.n_routings / 10
    same = compare_graphs(source, source)
    assert same.max_logit_difference == same.n_rerouted == 0


def test_what_is_measured_is_said_in_one_sentence() -> None:
    measured = {"n_positions": 240, "max_logit_difference": 0.78, "median_logit_difference": 0.008, "n_decisions": 9}
    measured |= {"max_risk_difference": 0.0, "n_flips": 1, "n_routings": 480, "n_rerouted": 6}
    said = departure_sentence({"precision": "int8", "departure_from_fp32": measured})
    assert (
        "on 240 positions of random tokens: 7.8e-01 in logits" in said and "6 of 480 choices of experts differ" in said
    )
    older = {key: value for key, value in measured.items() if "rout" not in key}  # of a bundle made before
    assert "experts" not in departure_sentence({"precision": "int8", "departure_from_fp32": older})


def test_no_precision_lifts_a_ceiling(lower: tuple[str, Path]) -> None:
    precision, folder = lower
    graph = Bundle.open(folder, threads=1).session
    inner, ids = graph.session, np.array([[5, 6, 7]])
    cache = np.zeros((1, 2, 0, 8), np.float16 if precision == "fp16" else np.float32)
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": np.arange(3)[None]}
    feed |= dict.fromkeys(graph.past_names, cache)
    closed = [("preference", [[np.nan, 1.0]]), ("allowed", [[1.0, 1.0, 2.0]]), ("harm_threshold", [5.0])]
    for name, value in closed:
        logits, size = inner.run(["logits", "safe_set_size"], feed | {name: np.array(value, np.float32)})
        assert (np.isfinite(logits) == (np.arange(200) == 1)).all() and (size == 0).all()
    most = {"allowed": np.ones((1, 3), np.float32), "harm_threshold": np.ones(1, np.float32)}
    bound = {"allowed": np.array([[1, 0, 0]], np.float32), "harm_threshold": np.array([0.9], np.float32)}
    np.testing.assert_array_equal(inner.run(["logits"], feed | most)[0], inner.run(["logits"], feed | bound)[0])
    assert (np.isfinite(inner.run(["logits"], feed)[0]).sum(-1) > 1).all()


def test_what_cannot_be_is_refused_before_the_first_slow_step(llama_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fp32, fp16, int8, int4"):
        export_bundle(llama_folder, tmp_path / "out", precision="int2")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"int8 needs an operator of ONNX Runtime.*use profile ort"):
        export_bundle(llama_folder, tmp_path / "out", profile="portable", precision="int8")
    assert not list(tmp_path.iterdir())


def test_a_manifest_of_a_precision_that_is_none_is_refused(llama_bundle: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(llama_bundle, tmp_path / "bundle")
    facts = {key: value for key, value in read_json(llama_bundle / "manifest.json").items() if key != "files"}
    write_manifest(tmp_path / "bundle", facts=facts | {"precision": "int9"})
    with pytest.raises(ArtefactError, match="'int9'"):
        Bundle.open(tmp_path / "bundle")


@pytest.mark.prove
def test_half_precision_is_portable(llama_folder: Path, pico: Any, tmp_path: Path) -> None:
    export_bundle(llama_folder, tmp_path / "out", profile="portable", precision="fp16")
    assert Bundle.open(tmp_path / "out", threads=1).generate(pico.conversations(2))[0].token_ids
