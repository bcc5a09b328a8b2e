"""Names of the dynamic axes, and a check that tracing made none of them constant."""

import onnx_ir as ir

from prosocial.core.errors import InputError

from ..runtime.session import LOGITS_TO_KEEP

BATCH, NEW, PAST, TOTAL = "batch_size", "sequence_length", "past_sequence_length", "total_sequence_length"
KEPT = "logits_length"  # number of positions that get logits
RESULTS = ("logits", "risk", "safe_set_size")
CONTROL_BATCH = "batch_size_or_1"
CONTROLS = ("preference", "allowed", "harm_threshold", "reward_scale")


def name_axes(graph: ir.Graph) -> None:
    """Name the dynamic axes of all inputs and outputs as onnxruntime-genai's builder does.

    Raises:
        InputError: an axis that should be dynamic has a constant size, or a value has no shape.
    """
    for value in (*graph.inputs, *graph.outputs):
        if value.name == LOGITS_TO_KEEP:
            continue
        if value.name in CONTROLS:
            value.shape = ir.Shape([CONTROL_BATCH, *list(value.shape or ())[1:]])
            continue
        expected = _axes(str(value.name))
        shape = value.shape
        if shape is None:
            raise InputError(f"{value.name} should have a shape in the traced graph, found none: try the other profile")
        fixed = [at for at, name in expected.items() if isinstance(shape[at], int)]
        if fixed:
            raise InputError(
                f"axis {fixed[0]} of {value.name} should be dynamic, found the constant shape {shape}: "
                "try the other profile"
            )
        value.shape = ir.Shape([expected.get(at, size) for at, size in enumerate(shape)])


def _axes(name: str) -> dict[int, str]:
    """Return the names of the dynamic axes of an input or output, by index."""
    if name == "attention_mask":
        return {0: BATCH, 1: TOTAL}
    if name.startswith("past_key_values."):
        return {0: BATCH, 2: PAST}
    if name.startswith("present."):
        return {0: BATCH, 2: TOTAL}
    return {0: BATCH, 1: KEPT if name in RESULTS else NEW}
