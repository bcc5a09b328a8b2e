"""Tracing of a wrapper to ONNX, with default controls as initializers, named axes and external weights."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from prosocial.core.errors import InputError
from prosocial.steering.steered_model import SteeredModel

from ..bundle_files.precision import Profile
from .attention import group_query
from .axes import CONTROLS, name_axes
from .dtypes import check_dtypes
from .experts import TRANSLATIONS
from .fusing import fuse
from .kept import POSITIONS, count_from_the_end
from .norms import unify_norms
from .sharing import share_transposed
from .wrapper import CachedBackbone, PlainGraph, SteeredGraph

GRAPH_FILE = "model.onnx"
WEIGHTS_FILE = "model.onnx.data"
OPSETS = {"ort": 20, "portable": 23}  # 23 has Attention, RMSNormalization and RotaryEmbedding as standard operators
INLINE_BYTES = 1024  # smaller tensors stay in the graph file
MOST_WORDS = 600  # characters of an exporter's error that a message repeats


@dataclass(frozen=True)
class TracedGraph:
    """A graph that was written.

    Attributes:
        path: path of `model.onnx`.
        inputs: names of the graph inputs.
        outputs: names of the graph outputs.
        opset: version of the standard operators.
        n_by_operator: number of nodes by operator.
        shared_tensors: initializers that were removed because they are the transpose of another.
    """

    path: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int
    n_by_operator: dict[str, int]
    shared_tensors: tuple[str, ...]


def trace_graph(graph: PlainGraph | SteeredGraph, folder: Path) -> TracedGraph:
    """Trace a wrapper and write `model.onnx` and `model.onnx.data` into `folder`.

    Batch size, sequence length and past length are dynamic axes. `logits_to_keep` and the controls of a steered graph
    are optional inputs: each has an initializer of the same name, which a caller may override.

    Raises:
        InputError: the model cannot be traced in this profile, tracing made a dynamic axis constant, or dtypes of the
            graph do not fit.
    """
    profile: Profile = graph.body.profile
    arguments, dynamic = _example(graph)
    names, outputs = _input_names(graph), [*graph.outputs, *_cache_names(graph, "present")]
    model = graph.body.backbone.model
    with _quiet(), torch.no_grad(), group_query(model) if profile == "ort" else contextlib.nullcontext():
        try:
            program = torch.onnx.export(
                graph,
                (),
                kwargs=arguments,
                dynamic_shapes=dynamic,
                input_names=names,
                output_names=outputs,
                opset_version=OPSETS[profile],
                custom_translation_table=TRANSLATIONS,
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise InputError(_reason(error, graph.body)) from error
    if program is None:
        raise InputError(
            f"{type(model).__name__} should be traceable in profile {profile!r}, the exporter returned no graph: "
            f"{_advice(graph.body)}"
        )
    traced: ir.Model = program.model
    if profile == "ort":
        with _quiet():
            fuse(traced)
    unify_norms(traced.graph)
    if isinstance(graph, SteeredGraph):
        _add_defaults(traced.graph, graph.steered)
    count_from_the_end(traced.graph)
    name_axes(traced.graph)
    check_dtypes(traced)
    _forget_origins(traced.graph)
    shared = share_transposed(traced.graph)
    ir.save(traced, folder / GRAPH_FILE, external_data=WEIGHTS_FILE, size_threshold_bytes=INLINE_BYTES)
    counts: dict[str, int] = {}
    for node in traced.graph:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    inputs = tuple(str(value.name) for value in traced.graph.inputs)
    return TracedGraph(
        folder / GRAPH_FILE, inputs, tuple(outputs), OPSETS[profile], dict(sorted(counts.items())), tuple(shared)
    )


def _example(graph: PlainGraph | SteeredGraph) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return example arguments and their dynamic axes.

    The sizes are distinct and above 1: tracing would merge equal sizes and make an axis of size 1 constant.
    """
    n_rows, n_new, n_past = 2, 3, 5
    body, free = graph.body, torch.export.Dim.DYNAMIC
    cache = (n_rows, body.n_kv_heads, n_past, body.head_size)

    def empty() -> torch.Tensor:
        return torch.zeros(cache, dtype=body.backbone.output_weight.dtype)

    arguments: dict[str, Any] = {
        "input_ids": torch.arange(n_rows * n_new).view(n_rows, n_new),
        "attention_mask": torch.ones(n_rows, n_past + n_new, dtype=torch.int64),
        "position_ids": torch.arange(n_past, n_past + n_new).repeat(n_rows, 1),
        "past_key_values": [(empty(), empty()) for _ in range(body.n_layers)],
    }
    dynamic: dict[str, Any] = {name: {0: free, 1: free} for name in ("input_ids", "attention_mask", "position_ids")}
    dynamic["past_key_values"] = [({0: free, 2: free}, {0: free, 2: free})] * body.n_layers
    arguments[POSITIONS], dynamic[POSITIONS] = torch.arange(7) % n_new, {0: free}
    if isinstance(graph, SteeredGraph):
        # The leading axis is fixed at 1: torch would identify a dynamic one with the batch and take sizes from it.
        for name, value in graph.steered.default_controls()._asdict().items():
            arguments[name], dynamic[name] = value, None
    return arguments, dynamic


def _input_names(graph: PlainGraph | SteeredGraph) -> list[str]:
    names = ["input_ids", "attention_mask", "position_ids", *_cache_names(graph, "past_key_values")]
    return [*names, POSITIONS, *(CONTROLS if isinstance(graph, SteeredGraph) else ())]


def _cache_names(graph: PlainGraph | SteeredGraph, kind: str) -> list[str]:
    return [f"{kind}.{layer}.{part}" for layer in range(graph.body.n_layers) for part in ("key", "value")]


def _add_defaults(graph: ir.Graph, steered: SteeredModel) -> None:
    """Give each control input an initializer of the same name with the default value."""
    defaults = steered.default_controls()._asdict()
    for value in graph.inputs:
        if value.name in defaults:
            array = np.ascontiguousarray(defaults[value.name].cpu().numpy())
            value.const_value = ir.tensor(array, name=value.name)
            graph.register_initializer(value)


def _forget_origins(graph: ir.Graph) -> None:
    """Remove the exporter's metadata on Python sources: it contains local paths and is most of the file's size."""
    for node in graph:
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*graph.inputs, *graph.initializers.values()):
        value.metadata_props.clear()


def _reason(error: BaseException, body: CachedBackbone) -> str:
    """Return the message for an exporter's error: that of an InputError in its causes, else its innermost cause."""
    cause: BaseException | None = error
    last: BaseException = error
    while cause is not None:
        last = cause
        if isinstance(cause, InputError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    lines = dict.fromkeys(" ".join(line.split()) for line in str(last).splitlines())
    words = " ".join(line for line in lines if line)
    name = type(body.backbone.model).__name__
    return (
        f"{name} should be traceable in profile {body.profile!r}, torch's exporter raised {type(last).__name__}: "
        f"{words if len(words) <= MOST_WORDS else words[:MOST_WORDS] + ' …'}; {_advice(body)}"
    )


def _advice(body: CachedBackbone) -> str:
    """Return what to do when a model cannot be traced: the other profile, unless it is refused at once."""
    if body.profile == "ort":
        return "try --profile portable"
    try:
        CachedBackbone(body.backbone, "ort")
    except InputError:
        return "profile 'ort' does not support it either: this architecture cannot be exported"
    return "try --profile ort"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's progress lines and warnings; errors are still raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
