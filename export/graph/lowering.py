"""Conversion of a traced graph to a lower precision, and the resulting difference from float32."""

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from ..bundle_files.precision import PRECISIONS, Precision
from ..runtime.session import GraphSession
from .quantisation import quantise_graph
from .trace import GRAPH_FILE, WEIGHTS_FILE, trace_graph
from .wrapper import PlainGraph, SteeredGraph

BITS = {"int8": 8, "int4": 4}
N_ROWS, N_PROMPT, N_DECODE = 4, 12, 3


@dataclass(frozen=True)
class Departure:
    """The differences between a graph and its float32 version in ONNX Runtime on random tokens.

    They are reported only; no limit is enforced.

    Attributes:
        n_positions: number of positions compared.
        max_logit_difference: largest absolute difference of logits that are finite in both graphs.
        median_logit_difference: median of these differences.
        max_risk_difference: largest absolute difference of risks.
        n_decisions: number of tokens that at least one graph admits.
        n_flips: number of tokens that only one graph admits.
    """

    n_positions: int
    max_logit_difference: float
    median_logit_difference: float
    max_risk_difference: float
    n_decisions: int
    n_flips: int

    def as_json(self, precision: Precision) -> dict[str, object]:
        """Return the entries of `parity.json` for this precision."""
        return {"departure_from_fp32": asdict(self), "precision_note": PRECISIONS[precision]}


def lower_precision(graph: PlainGraph | SteeredGraph, traced: Path, precision: Precision) -> Departure:
    """Replace the float32 graph at `traced`, already compared with torch, by one in a lower precision.

    For "fp16" this converts the weights of `graph` in memory and traces it again, so that operations which the model
    computes in float32, such as norms, stay in float32. For "int8" and "int4" it quantises the weights.

    Args:
        graph: the wrapper that was traced; modified in place for "fp16".
        traced: path of the graph in float32.
        precision: the lower precision.

    Returns:
        The differences from the float32 graph.

    Raises:
        InputError: the graph cannot be converted to this precision.
    """
    folder, shares_cache = traced.parent, graph.body.profile == "ort"
    with tempfile.TemporaryDirectory(dir=folder, prefix=".lower") as place:
        if precision == "fp16":
            graph.body.backbone.model.to(torch.float16)  # type: ignore[arg-type]
            trace_graph(graph, Path(place))
        else:
            quantise_graph(traced, Path(place), bits=BITS[precision])
        lowered = GraphSession(Path(place) / GRAPH_FILE, shares_cache=shares_cache)
        departure = compare_graphs(GraphSession(traced, shares_cache=shares_cache), lowered)
        del lowered  # Windows cannot replace a file that is still open
        for name in (GRAPH_FILE, WEIGHTS_FILE):
            (Path(place) / name).replace(folder / name)
    return departure


def compare_graphs(expected: GraphSession, actual: GraphSession) -> Departure:
    """Compare two graphs on random tokens: four rows, a prefill and three decoding steps, default controls."""
    size = int(expected.vocabulary_size)
    ids = np.random.default_rng(0).integers(0, size, (N_ROWS, N_PROMPT + N_DECODE))
    caches = [session.new_cache(*ids.shape) for session in (expected, actual)]
    logits: list[np.ndarray] = []
    risks, n_decisions, n_flips, n_past = [0.0], 0, 0, 0
    n_positions = 0
    for n_new in (N_PROMPT, *[1] * N_DECODE):
        new = ids[:, n_past : n_past + n_new]
        (left, caches[0]), (right, caches[1]) = (
            session.run(new, n_past, cache, None) for session, cache in zip((expected, actual), caches, strict=True)
        )
        in_left, in_right = np.isfinite(left["logits"]), np.isfinite(right["logits"])
        both = in_left & in_right
        logits.append(np.abs(left["logits"][both] - right["logits"][both]))
        if "risk" in left:
            risks.append(float(np.abs(left["risk"] - right["risk"]).max()))
        n_decisions, n_flips = n_decisions + int((in_left | in_right).sum()), n_flips + int((in_left != in_right).sum())
        n_positions, n_past = n_positions + left["logits"].shape[0] * left["logits"].shape[1], n_past + n_new
    differences = np.concatenate(logits)
    return Departure(
        n_positions,
        float(differences.max(initial=0.0)),
        float(np.median(differences)) if differences.size else 0.0,
        max(risks),
        n_decisions,
        n_flips,
    )
