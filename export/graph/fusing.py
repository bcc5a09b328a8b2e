"""Fusions for the profile `ort`: those of transformers, and packed query, key and value for the attention operator.

Each rewrite is equivalent to what it replaces; the comparison of the graph with torch checks this.
"""

import onnx_ir as ir
from onnx_ir.passes import common

ATTENTION = "GroupQueryAttention"


def fuse(model: ir.Model) -> None:
    """Fuse norms, skip connections and projections (transformers), then pack the inputs of attention, in place."""
    from transformers.exporters.onnxruntime_fusions import fuse_for_onnxruntime

    fuse_for_onnxruntime(model, "cpu")
    for node in list(model.graph):
        if node.op_type == ATTENTION:
            _read_flat(node)
            _read_packed(node)
            _write_flat(node)
    common.RemoveUnusedNodesPass()(model)


def _read_flat(node: ir.Node) -> None:
    """Skip reshapes into heads and back before the operator, which takes query, key and value as [B, S, n]."""
    for index in range(3):
        value = node.inputs[index]
        flat = _before_reshapes(value)
        if flat is not value and _width(flat) == _width(value) is not None:
            node.replace_input_with(index, flat)


def _read_packed(node: ir.Node) -> None:
    """Pass query, key and value as one packed input if they are the split parts of one projection, in this order."""
    parts = node.inputs[:3]
    split = parts[0].producer() if parts[0] is not None else None
    if split is None or split.op_type != "Split" or tuple(split.outputs) != tuple(parts):
        return
    node.replace_input_with(0, split.inputs[0])
    node.replace_input_with(1, None)
    node.replace_input_with(2, None)


def _write_flat(node: ir.Node) -> None:
    """Skip reshapes into heads and back after the operator, whose output is [B, S, n]."""
    output = node.outputs[0]
    last = output
    while len(users := [use.node for use in last.uses()]) == 1 and users[0].op_type == "Reshape":
        last = users[0].outputs[0]
    if last is not output and not last.is_graph_output() and _width(last) == _width(output) is not None:
        ir.convenience.replace_all_uses_with(last, output)


def _before_reshapes(value: ir.Value | None) -> ir.Value | None:
    while value is not None and (node := value.producer()) is not None and node.op_type == "Reshape":
        value = node.inputs[0]
    return value


def _width(value: ir.Value | None) -> int | None:
    """Return the last size of a value with three axes, None if it is not known."""
    if value is None or value.shape is None or len(value.shape) != 3:
        return None
    size = value.shape[-1]
    return size if isinstance(size, int) else None
