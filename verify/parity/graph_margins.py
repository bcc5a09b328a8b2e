"""Safety margins of candidate tokens, read from the gate inside a bundle's graph (needs onnx)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prosocial.core.errors import ArtefactError
from prosocial.export.bundle_files.verified import GRAPH_FILE
from prosocial.export.runtime.bundle import Bundle
from prosocial.steering.decoding.controls import ControlArrays, Steering, control_arrays

from .engines import Margins
from .graph_in_memory import feed, open_graph


class GraphMargins:
    """Computes the distance between the threshold and the risk of each plausible token, in one pass over the tokens.

    Two outputs are added to the graph in memory, the candidates and their risk; the files stay as they are.

    Raises:
        ArtefactError: the graph does not compare the risk of plausible tokens with a threshold.
    """

    def __init__(self, bundle: Bundle) -> None:
        if bundle.config is None:
            raise ArtefactError(f"{bundle.folder} should be a steered bundle, found a plain one, which has no gate")
        graph, self._names = _with_scores(bundle.files.graph, source=bundle.folder / GRAPH_FILE)
        self._session = open_graph(graph, bundle)
        self._config, self._size = bundle.config, bundle.session.vocabulary_size

    def __call__(self, ids: Sequence[int], n_last: int, controls: ControlArrays | None) -> Margins:
        """Return margins [n_last, V] of the last decisions; NaN for tokens whose risk the graph does not compute."""
        given = control_arrays(self._config, [Steering()]) if controls is None else controls
        inputs = feed(self._session, ids, n_last) | given.as_inputs()
        candidates, risk = self._session.run(self._names, inputs)  # [1, n_last, K]
        risk = np.where(np.isnan(risk), np.inf, risk)  # NaN says that the graph does not compute a token's risk
        threshold = min(float(given.harm_threshold[0]), self._config.threshold_ceiling)
        safety = np.full((n_last, self._size), np.nan, np.float32)
        np.put_along_axis(safety, candidates[0], threshold - risk[0], axis=1)
        return Margins(np.full_like(safety, np.nan), safety)


def _with_scores(graph: bytes, *, source: Path) -> tuple[bytes, list[str]]:
    """Return the graph with two more outputs, and their names: candidates [B, S, K] and their risk."""
    import onnx

    model = onnx.load_model_from_string(graph)
    choices = [node for node in model.graph.node if node.op_type == "TopK"]
    names = [choices[-1].output[1], *_compared(model.graph.node, choices[-1])] if choices else []
    if len(names) != 2:
        raise ArtefactError(
            f"{source} should compare the risk of its plausible tokens with one threshold, but it does not"
        )
    for name, kind in zip(names, (onnx.TensorProto.INT64, onnx.TensorProto.FLOAT), strict=True):
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    return model.SerializeToString(), names


def _compared(nodes: Sequence[Any], choice: Any) -> list[str]:
    """Return the names of values computed from the candidates that a node compares with an upper limit."""
    reached, compared = set(choice.output), []
    for node in nodes:  # in topological order
        if reached.intersection(node.input):
            reached.update(node.output)
            if node.op_type == "LessOrEqual" and node.input[0] in reached:
                compared.append(node.input[0])
    return compared
