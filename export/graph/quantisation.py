"""Weight-only quantisation of a traced graph: blocks of 32 weights share a scale; the rule stays in float32.

Only nodes that compute the model's logits are changed: each product with a constant matrix becomes ONNX Runtime's
MatMulNBits (com.microsoft, see ContribOperators.md), symmetric, with 8-bit activations (accuracy level 4). Head, gate
and reward table come after the logits and stay in float32, and so do the routers of a mixture of experts, which choose
the experts of each token. onnxruntime's quantiser does the rounding. The output
embedding has 8 bits at every precision; tied input and output embeddings share one copy.
"""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from prosocial.core.errors import InputError

from .routing import nodes_before, own_logits, routers
from .trace import GRAPH_FILE, INLINE_BYTES, WEIGHTS_FILE

BLOCK = 32
OUTPUT_BITS = 8  # with 4 bits, the output embedding would cause three quarters of the KL divergence
DOMAIN = "com.microsoft"
NEUTRAL = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transBatchA": 0, "transBatchB": 0}  # plain Gemm, FusedMatMul
COMPUTE_IN_INT8 = 4  # the operator's accuracy_level


@dataclass(frozen=True)
class _Product:
    """A node that multiplies by a constant matrix.

    Attributes:
        node: the node.
        weight: the node's input for the matrix.
        matrix: [K, N], the matrix.
        rows: the initializer if the matrix is stored transposed, [N, K]; else None.
    """

    node: ir.Node
    weight: ir.Value
    matrix: NDArray[np.floating[Any]]
    rows: ir.Value | None = None


def quantise_graph(source: Path, folder: Path, *, bits: int) -> Path:
    """Write the graph at `source` into `folder` with weights of `bits` (4 or 8) bits; return the path of the new graph.

    Raises:
        InputError: the logits do not depend on any product with a constant matrix.
    """
    model = ir.load(source)
    graph = model.graph
    nodes = nodes_before(graph, own_logits(graph))
    kept = routers(nodes)
    products = [product for node in nodes if node not in kept and (product := _product(node)) is not None]
    if not products:
        raise InputError(f"{source.name} should multiply by constant matrices to compute its logits, found none")
    for product in products[:-1]:
        _replace_product(graph, product, _quantised(graph, product, bits), bits)
    quantised = _quantised(graph, products[-1], OUTPUT_BITS)
    _share_embedding(graph, products[-1].rows, quantised)
    _replace_product(graph, products[-1], quantised, OUTPUT_BITS)
    graph.opset_imports.setdefault(DOMAIN, 1)
    RemoveUnusedNodesPass()(model)
    path = folder / GRAPH_FILE
    ir.save(model, path, external_data=WEIGHTS_FILE, size_threshold_bytes=INLINE_BYTES)
    return path


def _product(node: ir.Node) -> _Product | None:
    """Return the product if a node is a MatMul by a constant matrix [K, N] or a Gemm with a bias, else None."""
    if node.op_type not in ("MatMul", "FusedMatMul", "Gemm") or node.inputs[1] is None:
        return None
    matrix = _constant(node.inputs[1])
    if matrix is None or matrix.ndim != 2 or matrix.dtype != np.float32:
        return None
    weight = node.inputs[1]
    if any(name in node.attributes and node.attributes[name].value != value for name, value in NEUTRAL.items()):
        return None
    if "transB" in node.attributes and node.attributes["transB"].value == 1:
        return _Product(node, weight, matrix.T, rows=weight)
    transpose = weight.producer()
    is_stored_by_rows = transpose is not None and transpose.op_type == "Transpose"
    return _Product(node, weight, matrix, rows=transpose.inputs[0] if transpose and is_stored_by_rows else None)


def _constant(value: ir.Value) -> NDArray[Any] | None:
    """Return a value as an array if it is an initializer, its transpose (tied embeddings) or a slice (an expert)."""
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is not None:
        array: NDArray[Any] = tensor.numpy()
        return array
    node = value.producer()
    if node is None or node.op_type not in ("Transpose", "Gather") or node.inputs[0] is None:
        return None
    stored = ir.convenience.get_const_tensor(node.inputs[0])
    if stored is None:
        return None
    if node.op_type == "Transpose":
        return stored.numpy().T if len(stored.shape) == 2 else None
    index = ir.convenience.get_const_tensor(node.inputs[1]) if node.inputs[1] is not None else None
    is_expert = index is not None and index.size == 1 and len(stored.shape) == 3
    return stored.numpy()[int(index.numpy().item())] if index is not None and is_expert else None


def _quantised(graph: ir.Graph, product: _Product, bits: int) -> tuple[ir.Value, ir.Value]:
    """Add the quantised blocks [N, K / 32, bytes] and the scales [N, K / 32] of a matrix [K, N] to the graph."""
    name = product.weight.name
    with _own_logging():
        from onnxruntime.quantization import matmul_nbits_quantizer as library

        config = library.DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, bits=bits)
        blocks, scales, _ = library.DefaultWeightOnlyQuantizer(config).qbits_block_quant(
            np.ascontiguousarray(product.matrix)
        )
    return _initializer(graph, f"{name}.q{bits}", blocks), _initializer(graph, f"{name}.scales", scales)


def _initializer(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, const_value=tensor, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype))
    graph.register_initializer(value)
    return value


def _replace_product(graph: ir.Graph, product: _Product, quantised: tuple[ir.Value, ir.Value], bits: int) -> None:
    node, (n_in, n_out) = product.node, product.matrix.shape
    attributes = {"K": n_in, "N": n_out, "bits": bits, "block_size": BLOCK}
    blocked = ir.node(
        "MatMulNBits",
        [node.inputs[0], *quantised],
        attributes | {"accuracy_level": COMPUTE_IN_INT8},
        domain=DOMAIN,
        name=f"{node.name}.q{bits}",
    )
    new = [blocked]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        blocked.outputs[0].name = f"{node.outputs[0].name}.product"
        new.append(ir.node("Add", [blocked.outputs[0], node.inputs[2]], name=f"{node.name}.bias"))
    ir.convenience.replace_nodes_and_values(graph, node, [node], new, node.outputs, new[-1].outputs)


def _share_embedding(graph: ir.Graph, rows: ir.Value | None, quantised: tuple[ir.Value, ir.Value]) -> None:
    """Let a tied input embedding read the quantised blocks of the output embedding, stored as `rows` [V, H].

    If H is not a multiple of the block size, the input embedding keeps its own float32 copy.
    """
    hidden_size = rows.shape[1] if rows is not None and rows.shape is not None else None
    if rows is None or not isinstance(hidden_size, int) or hidden_size % BLOCK:
        return
    blocks, scales = quantised
    for gather in [use.node for use in rows.uses() if use.node.op_type == "Gather" and use.idx == 0]:
        ids = gather.inputs[1]
        if ids is None or ids.shape is None or len(ids.shape) != 2:
            continue
        name = gather.outputs[0].name
        last = _initializer(graph, f"{name}.last_axis", np.array([-1]))
        shape = _initializer(graph, f"{name}.shape", np.array([0, 0, hidden_size]))
        columns = ir.node("Unsqueeze", [scales, last], name=f"{name}.scales")  # folded when the graph is loaded
        picked = ir.node(
            "GatherBlockQuantized",
            [blocks, ids, columns.outputs[0]],
            {"gather_axis": 0, "quantize_axis": 2, "block_size": BLOCK, "bits": OUTPUT_BITS},
            domain=DOMAIN,
            name=f"{name}.blocks",
        )  # [B, S, H / 32, 32]
        whole = ir.node("Reshape", [picked.outputs[0], shape], name=f"{name}.rows")
        columns.outputs[0].name, picked.outputs[0].name = f"{name}.scale_columns", f"{name}.picked"
        new = [columns, picked, whole]
        ir.convenience.replace_nodes_and_values(graph, gather, [gather], new, gather.outputs, whole.outputs)


@contextlib.contextmanager
def _own_logging() -> Iterator[None]:
    """Restore the root logger after importing the quantiser, which sets a handler and the level INFO."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
