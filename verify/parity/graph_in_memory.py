"""A bundle's graph with additional outputs, changed in memory only; the files stay as they are."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from prosocial.export.runtime.bundle import Bundle
from prosocial.export.runtime.session import LOGITS_TO_KEEP, load_graph


def open_graph(graph: bytes, bundle: Bundle) -> Any:
    """Return a CPU session of ONNX Runtime for a changed graph with the weights of an opened bundle."""
    return load_graph(graph, bundle.files.weights())


def feed(session: Any, ids: Sequence[int], n_last: int) -> dict[str, "np.ndarray[Any, np.dtype[Any]]"]:
    """Return the inputs of one pass over tokens that decides at the last `n_last`, with an empty cache of its own."""
    tokens = np.array([list(ids)], dtype=np.int64)
    given = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "position_ids": np.arange(len(ids))[None]}
    given[LOGITS_TO_KEEP] = np.array([n_last])
    past = [value for value in session.get_inputs() if value.name.startswith("past_")]
    return given | {value.name: _empty(value) for value in past}


def _empty(value: Any) -> "np.ndarray[Any, np.dtype[Any]]":
    """Return an empty cache for one row."""
    _, n_heads, _, head_size = value.shape
    return np.zeros((1, n_heads, 0, head_size), np.float16 if value.type == "tensor(float16)" else np.float32)
