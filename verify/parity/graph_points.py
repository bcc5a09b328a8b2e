"""Intermediate values of a bundle's graph: the output of each norm, and each layer's keys and values (needs onnx)."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosocial.export.runtime.bundle import Bundle

from .graph_in_memory import feed, open_graph

PARAMETER = ".backbone.model."  # part of the name of each parameter that the graph keeps unchanged


class GraphPoints:
    """Reads the intermediate values of one pass.

    A norm is identified by the name of its weight, which the graph keeps. A norm whose weight was folded into another
    constant, or is shared by several norms, cannot be identified: only the keys and values of its layer are read.
    """

    def __init__(self, bundle: Bundle) -> None:
        import onnx

        model = onnx.load_model_from_string(bundle.files.graph)
        given = {value.name for value in model.graph.output}
        self._names = {name.removeprefix("present."): name for name in given if name.startswith("present.")}
        for module, outputs in _norms(model.graph.node).items():
            if len(outputs) == 1 and outputs[0] not in given:
                self._names[module] = outputs[0]
                model.graph.output.append(onnx.ValueInfoProto(name=outputs[0]))
        self._session = open_graph(model.SerializeToString(), bundle)

    def __call__(self, ids: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Return the value at each point by name: a module of the model, or `3.key` and `3.value` for layer 3."""
        values = self._session.run(list(self._names.values()), feed(self._session, ids, 1))
        points = zip(self._names, values, strict=True)
        return {name: np.asarray(value[0], np.float32) for name, value in points}


def _norms(nodes: Iterable[Any]) -> dict[str, list[str]]:
    """Return, for each norm module, the first output of every node that takes its weight as input."""
    outputs: dict[str, list[str]] = {}
    for node in nodes:
        for name in node.input:
            module = name.partition(PARAMETER)[2].removesuffix(".weight")
            if "norm" in module.lower() and node.op_type != "Cast":
                outputs.setdefault(module, []).append(node.output[0])
    return outputs
