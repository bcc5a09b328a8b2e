"""What passes by inside a bundle's graph: the output of each norm, and each layer's keys and values (needs onnx)."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosocial.export.runtime.bundle import Bundle

from .graph_in_memory import feed, open_graph

PARAMETER = ".backbone.model."  # stands in the name of a parameter that the graph kept as it was


class GraphPoints:
    """Reads the points of one pass.

    A norm is found by its weight, whose name the graph keeps. One whose weight was folded into another constant, or is
    stored once for several norms, is not: the keys and values of its layer have to do.
    """

    def __init__(self, bundle: Bundle) -> None:
        import onnx

        model = onnx.load(str(bundle.folder / "model.onnx"), load_external_data=False)
        given = {value.name for value in model.graph.output}
        self._names = {name.removeprefix("present."): name for name in given if name.startswith("present.")}
        for module, outputs in _norms(model.graph.node).items():
            if len(outputs) == 1 and outputs[0] not in given:
                self._names[module] = outputs[0]
                model.graph.output.append(onnx.ValueInfoProto(name=outputs[0]))
        self._session = open_graph(model.SerializeToString(), bundle.folder)

    def __call__(self, ids: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Return each point by name: a module of the model, or `3.key` and `3.value` for layer 3."""
        values = self._session.run(list(self._names.values()), feed(self._session, ids))
        found = zip(self._names, values, strict=True)
        return {name: np.asarray(value[0], np.float32) for name, value in found}


def _norms(nodes: Iterable[Any]) -> dict[str, list[str]]:
    """Return the first output of every node that a norm's weight goes into, by the module that the weight is of."""
    found: dict[str, list[str]] = {}
    for node in nodes:
        for name in node.input:
            module = name.partition(PARAMETER)[2].removesuffix(".weight")
            if "norm" in module.lower() and node.op_type != "Cast":
                found.setdefault(module, []).append(node.output[0])
    return found
