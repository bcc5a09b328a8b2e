"""A traced graph in a lower precision, and how far that takes it from the graph in float32."""

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
    """How far a graph is from the one in float32, both in ONNX Runtime, on random tokens. Measured, never a gate.

    Attributes:
        n_positions: compared. max_, median_logit_difference: over logits that both let in. max_risk_difference.
        n_decisions: tokens that at least one graph lets in. n_flips: those that only one does.
    """

    n_positions: int
    max_logit_difference: float
    median_logit_difference: float
    max_risk_difference: float
    n_decisions: int
    n_flips: int

    def as_json(self, precision: Precision) -> dict[str, object]:
        """Return what `parity.json` says of the precision."""
        return {"departure_from_fp32": asdict(self), "precision_note": PRECISIONS[precision]}


def lower_precision(graph: PlainGraph | SteeredGraph, traced: Path, precision: Precision) -> Departure:
    """Replace the graph at `traced` (float32, already found equal to torch) by one in a lower precision.

    Of `fp16` the model's weights become float16 in memory too, and it is traced again: its own steps in float32, such
    as norms, stay so.

    Raises:
        InputError: the graph cannot be made in this precision.
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
        del lowered  # or else its file could not be replaced on every system
        for name in (GRAPH_FILE, WEIGHTS_FILE):
            (Path(place) / name).replace(folder / name)
    return departure


def compare_graphs(expected: GraphSession, actual: GraphSession) -> Departure:
    """Run both on the same random tokens: a prefill and three decode steps of four rows, default controls."""
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
