"""Mixtures of experts in the graph: each expert multiplies the rows routed to it, and only those.

transformers sorts the rows by expert and multiplies them group by group through an operator of its own; here that
operator becomes one slice and one MatMul for each expert. An expert with no rows costs nothing.
"""

from collections.abc import Callable
from typing import Any

import onnxscript
import torch
import transformers.integrations.moe  # noqa: F401  # it registers the operator

op: Any = onnxscript.opset18  # its annotations know no values of a graph
INT64 = 7  # onnx.TensorProto.INT64


def grouped_matmul(rows: Any, weights: Any, ends: Any) -> Any:
    """Emit the product of rows [S, in], sorted by expert, with weights [E, in, out] as [S, out].

    Args:
        rows, weights, ends: values of the graph; ends: [E], where each expert's rows end.
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
