"""Tied embeddings stored once: undo the exporter's folding of a transposed matrix into a second copy."""

import numpy as np
import onnx_ir as ir

LEAST_BYTES = 1024


def share_transposed(graph: ir.Graph) -> list[str]:
    """Replace each 2-D initializer that is the transpose of another by a Transpose node; return the replaced names.

    The values must be equal bit for bit; everything else in the graph is unchanged. ONNX Runtime folds the node when it
    loads the graph, so that inference is as fast as before.
    """
    kept: list[ir.Value] = []
    replaced: list[str] = []
    for value in list(graph.initializers.values()):
        array = _matrix(value)
        if array is None:
            continue
        twin = next((other for other in kept if _is_transpose(array, other)), None)
        if twin is None:
            kept.append(value)
            continue
        node = ir.node("Transpose", [twin], {"perm": [1, 0]})
        output = node.outputs[0]
        output.name, output.type, output.shape = f"{twin.name}.transposed", value.type, value.shape
        graph.insert_before(graph[0], node)
        ir.convenience.replace_all_uses_with(value, output)
        del graph.initializers[str(value.name)]
        replaced.append(str(value.name))
    return replaced


def _matrix(value: ir.Value) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]] | None":
    tensor = value.const_value
    if tensor is None or len(tensor.shape) != 2 or tensor.nbytes < LEAST_BYTES or tensor.dtype != ir.DataType.FLOAT:
        return None
    array: np.ndarray[tuple[int, int], np.dtype[np.float32]] = tensor.numpy()
    return array


def _is_transpose(array: "np.ndarray[tuple[int, int], np.dtype[np.float32]]", other: ir.Value) -> bool:
    twin = _matrix(other)
    if twin is None or twin.shape != array.shape[::-1] or not np.array_equal(twin[:, 0], array[0]):
        return False  # a cheap test first: most pairs differ in the first row
    return bool(np.array_equal(twin.T, array))
