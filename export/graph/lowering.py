"""Conversion of a traced graph to a lower precision, and the resulting difference from float32."""

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prosocial.core.errors import ProsocialError

from ..bundle_files.precision import PRECISIONS, Precision
from .agreement import MOST_LOGITS
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

    The rows run in batches of at most 64 MiB of logits, or one at a time.

    Args:
        expected: path of the graph in float32.
        actual: path of the same graph in another precision.

    Raises:
        ProsocialError: the model's own logits are infinite or NaN in the second graph.
        ArtefactError: a graph cannot be loaded.
    """
    left, right = RevealedGraph(expected), RevealedGraph(actual)
    parts = [
        (*_differences(*step), *_routing(*step, (left.choices, right.choices)))
        for step in _steps(left, right, _some_ids(left.vocabulary_size))
    ]
    logits, risks, *counts = zip(*parts, strict=True)
    differences = np.concatenate(logits)
    return Departure(
        N_ROWS * (N_PROMPT + N_DECODE),
        float(differences.max(initial=0.0)),
        float(np.median(differences)) if differences.size else 0.0,
        max(risks),
        *map(sum, counts),
    )


def _steps(left: RevealedGraph, right: RevealedGraph, ids: NDArray[np.int64]) -> Iterator[tuple[Arrays, Arrays]]:
    """Yield the outputs of both graphs for each pass, after checking that the second's are finite."""
    n_rows = max(1, MOST_LOGITS // (N_PROMPT * left.vocabulary_size))
    for first in range(0, N_ROWS, n_rows):
        rows, n_past = ids[first : first + n_rows], 0
        for n_new in (N_PROMPT, *[1] * N_DECODE):
            new = rows[:, n_past : n_past + n_new]
            step = left.run(new, n_past), right.run(new, n_past)
            for name in {right.own_logits, "risk"} & step[1].keys():
                _require_finite(step[1][name], name)
            yield step
            n_past += n_new


def _require_finite(numbers: NDArray[np.floating[Any]], name: str) -> None:
    n_broken = int((~np.isfinite(numbers)).sum())
    if n_broken:
        raise ProsocialError(
            f"the converted graph should give finite numbers, {n_broken} of {numbers.size} in {name} on random tokens "
            "are infinite or NaN: this precision does not hold the model's activations, use --precision fp32"
        )


def _differences(left: Arrays, right: Arrays) -> tuple[NDArray[np.floating[Any]], float, int, int]:
    """Return the differences of logits [N], the largest of risks, and how many decisions there are and differ."""
    in_left, in_right = np.isfinite(left["logits"]), np.isfinite(right["logits"])
    both = in_left & in_right
    logits = np.abs(left["logits"][both] - right["logits"][both])
    risk = float(np.abs(left["risk"] - right["risk"]).max()) if "risk" in left else 0.0
    return logits, risk, int((in_left | in_right).sum()), int((in_left != in_right).sum())


def _routing(left: Arrays, right: Arrays, names: tuple[list[str], list[str]]) -> tuple[int, int]:
    """Return the number of choices of experts and of those that differ, whatever the order of the experts."""
    differs = [
        (np.sort(left[first], -1) != np.sort(right[second], -1)).any(-1) for first, second in zip(*names, strict=True)
    ]
    return sum(each.size for each in differs), sum(int(each.sum()) for each in differs)
