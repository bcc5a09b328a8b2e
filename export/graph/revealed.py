"""A graph opened with more outputs: the model's own logits, and the experts that its routers choose."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..runtime.session import GraphSession
from .routing import expert_choices, nodes_before, own_logits

Arrays = dict[str, NDArray[Any]]


class RevealedGraph:
    """Runs a graph on the CPU, with default controls and a cache that grows with each run.

    Args:
        path: path of `model.onnx`; a file beside it is written and removed.

    Attributes:
        own_logits: name of the output with the model's own logits, before the rule.
        choices: names of the outputs with the indices of experts, one per ranking.

    Raises:
        ArtefactError: the graph cannot be loaded.
        MissingExtraError: onnxruntime is not installed.
    """

    def __init__(self, path: Path) -> None:
        model = ir.load(path)
        logits = own_logits(model.graph)
        choices = expert_choices(nodes_before(model.graph, logits))
        for value in choices:
            value.type = ir.TensorType(ir.DataType.INT64)
        model.graph.outputs.extend(value for value in (logits, *choices) if not value.is_graph_output())
        self.own_logits, self.choices = str(logits.name), [str(value.name) for value in choices]
        changed = path.with_name(f"revealed.{path.name}")
        try:
            ir.save(model, changed)
            self._session = GraphSession(changed, shares_cache=False)
        finally:
            changed.unlink(missing_ok=True)
        self.vocabulary_size = int(self._session.vocabulary_size)
        self._past: Arrays = {}

    def run(self, ids: NDArray[np.int64], n_past: int) -> Arrays:
        """Run new tokens [B, S] that follow the `n_past` of the runs before; return all outputs but the cache."""
        session, (n_rows, n_new) = self._session, ids.shape
        if n_past == 0:
            empty = [value.numpy() for value in session.new_cache(n_rows, 0)]
            self._past = dict(zip(session.past_names, empty, strict=True))
        positions = np.broadcast_to(np.arange(n_past, n_past + n_new), ids.shape)
        feed = {
            "input_ids": ids,
            "attention_mask": np.ones((n_rows, n_past + n_new), np.int64),
            "position_ids": positions,
        }
        outputs = session.session.run([*session.result_names, *session.present_names], feed | self._past)
        results = dict(zip(session.result_names, outputs, strict=False))
        self._past = dict(zip(session.past_names, outputs[len(results) :], strict=True))
        return results
