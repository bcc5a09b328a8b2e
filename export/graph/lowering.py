"""Conversion of a traced graph to a lower precision, and the resulting difference from float32."""

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prosocial.core.errors import ProsocialError

from ..bundle_files.precision import PRECISIONS, Precision
from .overflow import convert_to_float16
from .quantisation import quantise_graph
from .revealed import Arrays, RevealedGraph
from .trace import GRAPH_FILE, WEIGHTS_FILE, trace_graph
from .wrapper import PlainGraph, SteeredGraph

BITS = {"int8": 8, "int4": 4}
N_ROWS, N_PROMPT, N_DECODE = 16, 12, 3


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
        n_routings: number of choices of experts, one per position and router; 0 without routers.
        n_rerouted: number of these choices in which the graphs differ.
    """

    n_positions: int
    max_logit_difference: float
    median_logit_difference: float
    max_risk_difference: float
    n_decisions: int
    n_flips: int
    n_routings: int
    n_rerouted: int

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
        InputError: the graph cannot be converted to this precision, or float16 does not hold its numbers.
        ProsocialError: the new graph gives logits that are infinite or NaN.
    """
    folder = traced.parent
    with tempfile.TemporaryDirectory(dir=folder, prefix=".lower") as place:
        if precision == "fp16":
            backbone = graph.body.backbone
            convert_to_float16(backbone, torch.from_numpy(_some_ids(backbone.output_weight.shape[0])))
            trace_graph(graph, Path(place))
        else:
            quantise_graph(traced, Path(place), bits=BITS[precision])
        departure = compare_graphs(traced, Path(place) / GRAPH_FILE)
        for name in (GRAPH_FILE, WEIGHTS_FILE):
            (Path(place) / name).replace(folder / name)
    return departure


def _some_ids(vocabulary_size: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, vocabulary_size, (N_ROWS, N_PROMPT + N_DECODE))


def compare_graphs(expected: Path, actual: Path) -> Departure:
    """Compare two graphs on random tokens: 16 rows, a prefill and three decoding steps, default controls.

    Args:
        expected: path of the graph in float32.
        actual: path of the same graph in another precision.

    Raises:
        ProsocialError: the model's own logits are infinite or NaN in the second graph.
        ArtefactError: a graph cannot be loaded.
    """
    left, right = RevealedGraph(expected), RevealedGraph(actual)
    ids = _some_ids(left.vocabulary_size)
    steps: list[tuple[Arrays, Arrays]] = []
    n_past = 0
    for n_new in (N_PROMPT, *[1] * N_DECODE):
        new = ids[:, n_past : n_past + n_new]
        steps.append((left.run(new, n_past), right.run(new, n_past)))
        for name in {right.own_logits, "risk"} & steps[-1][1].keys():
            _require_finite(steps[-1][1][name], name)
        n_past += n_new
    return Departure(n_positions=ids.size, **_differences(steps), **_routing(steps, (left.choices, right.choices)))


def _require_finite(numbers: NDArray[np.floating[Any]], name: str) -> None:
    n_broken = int((~np.isfinite(numbers)).sum())
    if n_broken:
        raise ProsocialError(
            f"the converted graph should give finite numbers, {n_broken} of {numbers.size} in {name} on random tokens "
            "are infinite or NaN: this precision does not hold the model's activations, use --precision fp32"
        )


def _differences(steps: list[tuple[Arrays, Arrays]]) -> dict[str, Any]:
    """Return the differences of logits and risks, and the number of different decisions."""
    logits, risks, n_decisions, n_flips = [], [0.0], 0, 0
    for left, right in steps:
        in_left, in_right = np.isfinite(left["logits"]), np.isfinite(right["logits"])
        both = in_left & in_right
        logits.append(np.abs(left["logits"][both] - right["logits"][both]))
        if "risk" in left:
            risks.append(float(np.abs(left["risk"] - right["risk"]).max()))
        n_decisions += int((in_left | in_right).sum())
        n_flips += int((in_left != in_right).sum())
    differences = np.concatenate(logits)
    return {
        "max_logit_difference": float(differences.max(initial=0.0)),
        "median_logit_difference": float(np.median(differences)) if differences.size else 0.0,
        "max_risk_difference": max(risks),
        "n_decisions": n_decisions,
        "n_flips": n_flips,
    }


def _routing(steps: list[tuple[Arrays, Arrays]], names: tuple[list[str], list[str]]) -> dict[str, int]:
    """Return the number of choices of experts and of those that differ, whatever the order of the experts."""
    n_routings = n_rerouted = 0
    for left, right in steps:
        for first, second in zip(*names, strict=True):
            differs = (np.sort(left[first], -1) != np.sort(right[second], -1)).any(-1)
            n_routings, n_rerouted = n_routings + differs.size, n_rerouted + int(differs.sum())
    return {"n_routings": n_routings, "n_rerouted": n_rerouted}
