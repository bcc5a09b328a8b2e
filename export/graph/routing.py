"""The routers of a mixture of experts in a graph: the products whose results a node ranks to choose experts."""

from collections.abc import Iterable, Sequence

import onnx_ir as ir

RANKING = ("TopK", "ArgMax")
PRODUCTS = ("MatMul", "FusedMatMul", "Gemm", "MatMulNBits")


def own_logits(graph: ir.Graph) -> ir.Value:
    """Return the value of the model's own logits; in a steered graph, those that the rule reads."""
    if any(value.name == "safe_set_size" for value in graph.outputs):
        ranked = [node for node in graph if node.op_type == "TopK"][-1].inputs[0]
        assert ranked is not None
        return ranked
    return next(value for value in graph.outputs if value.name == "logits")


def nodes_before(graph: ir.Graph, value: ir.Value) -> list[ir.Node]:
    """Return the nodes that a value depends on, in the order of the graph."""
    before = _ancestors([value])
    return [node for node in graph if node in before]


def expert_choices(nodes: Iterable[ir.Node]) -> list[ir.Value]:
    """Return the indices that each ranking among these nodes of the model gives."""
    return [node.outputs[-1] for node in _rankings(nodes)]


def routers(nodes: Iterable[ir.Node]) -> set[ir.Node]:
    """Return the products whose results are ranked, without a further product between them and the ranking."""
    ranked = [node.inputs[0] for node in _rankings(nodes)]
    return {node for node in _ancestors(ranked, until=PRODUCTS) if node.op_type in PRODUCTS}


def _rankings(nodes: Iterable[ir.Node]) -> list[ir.Node]:
    """Return the nodes that rank scores; sorting whole numbers, such as the rows of each expert, is no choice."""
    ranking = [(node, node.inputs[0]) for node in nodes if node.op_type in RANKING]
    return [node for node, scores in ranking if scores and scores.dtype and scores.dtype.is_floating_point()]


def _ancestors(values: Iterable[ir.Value | None], *, until: Sequence[str] = ()) -> set[ir.Node]:
    """Return the nodes that some values depend on, back to the first of each path whose operator is in `until`."""
    waiting, visited = [value.producer() for value in values if value is not None], set[ir.Node]()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in visited:
            visited.add(node)
            if node.op_type not in until:
                waiting += [value.producer() for value in node.inputs if value is not None]
    return visited
