"""The graph input `logits_to_keep`: logits for the last positions only, as in transformers.

Decoding needs the logits of the last position only, and for a long prompt the output embedding and the rule take most
of the time. The module is traced with the positions as an input; here they are computed from the number to keep.
"""

import numpy as np
import onnx_ir as ir

from ..runtime.session import LOGITS_TO_KEEP

POSITIONS = "kept_positions"  # input of the traced module, [P] int64


def count_from_the_end(graph: ir.Graph) -> None:
    """Replace the input `kept_positions` by `logits_to_keep`, the number of last positions; 0 (default) for all."""
    positions = next(value for value in graph.inputs if value.name == POSITIONS)
    graph.inputs.remove(positions)
    count = _integers(graph, LOGITS_TO_KEEP, [0])
    graph.inputs.append(count)
    tokens = next(value for value in graph.inputs if value.name == "input_ids")
    tape = ir.tape.Tape()
    n_new = tape.op("Shape", [tokens], {"start": 1, "end": 2})
    is_some = tape.op("Greater", [count, _integers(graph, "kept_none", [0])])
    n_kept = tape.op("Where", [is_some, tape.op("Min", [count, n_new]), n_new])
    axis = _integers(graph, "kept_axis", [0])
    ends = [tape.op("Squeeze", [value, axis]) for value in (tape.op("Sub", [n_new, n_kept]), n_new)]
    kept = tape.op("Range", [*ends, _integers(graph, "kept_step", 1)])
    graph.insert_before(graph[0], tape.nodes)
    ir.convenience.replace_all_uses_with(positions, kept)


def _integers(graph: ir.Graph, name: str, values: list[int] | int) -> ir.Value:
    tensor = ir.tensor(np.array(values, np.int64), name=name)
    type_, shape = ir.TensorType(ir.DataType.INT64), ir.Shape(np.shape(values))
    value = ir.Value(name=name, type=type_, shape=shape, const_value=tensor)
    graph.register_initializer(value)
    return value
