"""Mixtures of experts in the graph: each expert multiplies only the rows routed to it.

transformers sorts the rows by expert and multiplies each group in a custom operator. Here this operator is translated
to one Slice and one MatMul per expert, so that an expert without rows takes no time.
"""

from collections.abc import Callable
from typing import Any

import onnxscript
import torch
import transformers.integrations.moe  # noqa: F401  # registers the operator

op: Any = onnxscript.opset18  # its type annotations do not cover values of a graph
INT64 = 7  # onnx.TensorProto.INT64


def grouped_matmul(rows: Any, weights: Any, ends: Any) -> Any:
    """Emit the nodes for the product of each expert's rows with its weights, [S, out].

    Args:
        rows: graph value [S, in], sorted by expert.
        weights: graph value [E, in, out].
        ends: graph value [E], end of each expert's rows.
    """
    axis = op.Constant(value_ints=[0])
    start, products = axis, []
    for expert in range(weights.shape[0]):
        end = op.Cast(op.Gather(ends, op.Constant(value_ints=[expert])), to=INT64)
        matrix = op.Gather(weights, op.Constant(value_int=expert), axis=0)  # [in, out]
        products.append(op.MatMul(op.Slice(rows, start, end, axis), matrix))
        start = end
    return op.Concat(*products, axis=0)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.transformers.grouped_mm_fallback.default: grouped_matmul
}
