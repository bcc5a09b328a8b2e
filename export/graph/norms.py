"""Norms of a float16 graph in one dtype each: those with a float32 weight compute in float32.

The exporter's fusions join a norm that a float16 model computes in float32 (Gemma, OLMo 2) into one node that reads
float16 states and a float32 weight. Runtimes have no kernel for this: the states are cast to float32 first, as the
model does. The weight stays as it is, because 1 + weight is seldom a float16 number.
"""

import onnx_ir as ir

NORMS = ("RMSNormalization", "SimplifiedLayerNormalization")
SKIP_NORM = "SkipSimplifiedLayerNormalization"


def unify_norms(graph: ir.Graph) -> None:
    """Give all inputs of each norm the widest of their dtypes, in place."""
    for node in list(graph):
        if node.op_type == SKIP_NORM and _is_mixed(node):
            node = _split_skip(graph, node)
        if node.op_type in NORMS and _is_mixed(node):
            _widen(graph, node)


def _is_mixed(node: ir.Node) -> bool:
    return len({value.dtype for value in node.inputs if value is not None}) > 1


def _split_skip(graph: ir.Graph, node: ir.Node) -> ir.Node:
    """Replace the node of a sum and a norm by one of each; return the norm."""
    states, skip, weight, *bias = node.inputs
    new = [ir.node("Add", [states, skip])]
    if bias and bias[0] is not None:
        new.append(ir.node("Add", [new[0].outputs[0], bias[0]]))
    total = new[-1].outputs[0]
    if states is not None:
        for added in new:
            added.outputs[0].type, added.outputs[0].shape = states.type, states.shape
    attributes = {"axis": -1, "stash_type": 1, "epsilon": node.attributes.get_float("epsilon", 1e-5)}
    norm = ir.node("SimplifiedLayerNormalization", [total, weight], attributes)
    old_and_new = [(node.outputs[0], norm.outputs[0]), *[(output, total) for output in node.outputs[3:]]]
    ir.convenience.replace_nodes_and_values(graph, node, [node], [*new, norm], *zip(*old_and_new, strict=True))
    return norm


def _widen(graph: ir.Graph, node: ir.Node) -> None:
    """Cast the inputs of a norm to the widest of their dtypes, and its output back to the dtype that it had."""
    widest = max(
        (value.dtype for value in node.inputs if value is not None and value.dtype), key=lambda one: one.bitwidth
    )
    for index, value in enumerate(node.inputs):
        if value is not None and value.dtype != widest:
            cast = _cast(value, widest)
            graph.insert_before(node, cast)
            node.replace_input_with(index, cast.outputs[0])
    output, uses = node.outputs[0], list(node.outputs[0].uses())
    if output.dtype not in (widest, None):
        back = _cast(output, output.dtype)
        graph.insert_after(node, back)
        for use in uses:
            use.node.replace_input_with(use.idx, back.outputs[0])
    output.type = ir.TensorType(widest)


def _cast(value: ir.Value, dtype: ir.DataType) -> ir.Node:
    cast = ir.node("Cast", [value], {"to": dtype.value})
    cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(dtype), value.shape
    return cast
