"""What passes by inside a bundle's graph: the output of each norm, and each layer's keys and values (needs onnx)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosocial.export.bundle import Bundle

from .graph_in_memory import feed, open_graph

PARAMETER = ".backbone.model."  # stands in the name of a parameter that the graph kept as it was


class GraphPoints:
    """Reads the points of one pass.

    A norm is found by its weight, whose name the graph keeps; one whose weight was folded into another constant is
    not, and the keys and values of its layer have to do.
    """

    def __init__(self, bundle: Bundle) -> None:
        import onnx

        model = onnx.load(str(bundle.folder / "model.onnx"), load_external_data=False)
        given = {value.name for value in model.graph.output}
        self._names = {name.removeprefix("present."): name for name in given if name.startswith("present.")}
        for node in model.graph.node:
            weights = [each.split(PARAMETER)[1] for each in node.input if PARAMETER in each and "norm" in each.lower()]
            weights = [each for each in weights if each.endswith(".weight")]
            if weights and node.op_type != "Cast" and node.output[0] not in given:
                self._names[weights[0].removesuffix(".weight")] = node.output[0]
                given.add(node.output[0])
                model.graph.output.append(onnx.ValueInfoProto(name=node.output[0]))
        self._session = open_graph(model.SerializeToString(), bundle.folder)

    def __call__(self, ids: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Return each point by name: a module of the model, or `3.key` and `3.value` for layer 3."""
        values = self._session.run(list(self._names.values()), feed(self._session, ids))
        found = zip(self._names, values, strict=True)
        return {name: np.asarray(value[0], np.float32) for name, value in found}
