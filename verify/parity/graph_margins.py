"""What a bundle's own gate says of each candidate token, read out of its graph (needs onnx)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from prosocial.editing.errors import ArtefactError
from prosocial.export.bundle import Bundle
from prosocial.export.session import ERRORS_ONLY, import_runtime
from prosocial.export.steering import ControlArrays, Steering, control_arrays

from .engines import Margins

FOLDER_OF_WEIGHTS = "session.model_external_initializers_file_folder_path"


class GraphMargins:
    """Computes how far from the threshold a steered bundle sees its plausible tokens, in one pass over the tokens.

    The graph in memory gets two more outputs, the candidates and their risk; the files stay as they are.

    Raises:
        ArtefactError: the graph does not compare the risk of plausible tokens with a threshold.
    """

    def __init__(self, bundle: Bundle) -> None:
        if bundle.config is None:
            raise ArtefactError(f"{bundle.folder} should be a steered bundle: a plain one has no gate")
        runtime, path = import_runtime(), bundle.folder / "model.onnx"
        graph, self._names = _with_scores(str(path))
        options = runtime.SessionOptions()
        options.log_severity_level = ERRORS_ONLY
        options.add_session_config_entry(FOLDER_OF_WEIGHTS, str(bundle.folder.resolve()))
        self._session = runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._past = {value.name: value for value in self._session.get_inputs() if value.name.startswith("past_")}
        self._config, self._size = bundle.config, bundle.session.vocabulary_size

    def __call__(self, ids: Sequence[int], n_last: int, controls: ControlArrays | None) -> Margins:
        """Return margins [n_last, V] of the last `n_last` decisions; NaN where the graph does not say."""
        given = control_arrays(self._config, [Steering()]) if controls is None else controls
        tokens = np.array([list(ids)], dtype=np.int64)
        feed = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "position_ids": np.arange(len(ids))[None]}
        feed |= {name: _empty(value) for name, value in self._past.items()}
        candidates, risk = self._session.run(self._names, feed | given.as_inputs())  # [1, S, K]
        threshold = min(float(given.harm_threshold[0]), self._config.threshold_ceiling)
        safety = np.full((n_last, self._size), np.nan, np.float32)
        np.put_along_axis(safety, candidates[0, -n_last:], threshold - risk[0, -n_last:], axis=1)
        return Margins(np.full_like(safety, np.nan), safety)


def _with_scores(path: str) -> tuple[bytes, list[str]]:
    """Return the graph with two more outputs and their names: candidates [B, S, K] and their risk."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    choices = [node for node in model.graph.node if node.op_type == "TopK"]
    names = [choices[-1].output[1], *_compared(model.graph.node, choices[-1])] if choices else []
    if len(names) != 2:
        raise ArtefactError(f"{path} should compare the risk of its plausible tokens with one threshold: it does not")
    for name, kind in zip(names, (onnx.TensorProto.INT64, onnx.TensorProto.FLOAT), strict=True):
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    return model.SerializeToString(), names


def _compared(nodes: Sequence[Any], choice: Any) -> list[str]:
    """Return the values made from the chosen candidates that some node holds against an upper limit."""
    reached, found = set(choice.output), []
    for node in nodes:  # in topological order
        if reached.intersection(node.input):
            reached.update(node.output)
            if node.op_type == "LessOrEqual" and node.input[0] in reached:
                found.append(node.input[0])
    return found


def _empty(value: Any) -> "np.ndarray[Any, np.dtype[Any]]":
    """A cache without tokens, for one row."""
    _, n_heads, _, head_size = value.shape
    return np.zeros((1, n_heads, 0, head_size), np.float16 if value.type == "tensor(float16)" else np.float32)
