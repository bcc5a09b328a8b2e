"""The options for where a command that measures runs its models: in torch, and as bundles in ONNX Runtime."""

from typing import TYPE_CHECKING, Annotated

import typer

from .training_options import Dtype

if TYPE_CHECKING:
    from prosocial.core import Placement

DEVICE = "Of a model in torch: auto, cpu, cuda, cuda:1 or mps; auto: CUDA, then MPS, then the CPU. [default: auto]"
Provider = Annotated[
    str, typer.Option("--provider", help="Execution provider of ONNX Runtime, such as cpu, cuda, dml or coreml.")
]
# What `with_options` adds to a command; `Hardware.choose` takes it.
HARDWARE = {
    "device": Annotated[str | None, typer.Option("--device", help=DEVICE)],
    "dtype": Annotated[
        Dtype | None,
        typer.Option("--dtype", help="Of a model in torch. [default: float32, as a bundle computes; thresholds too]"),
    ],
    "provider": Annotated[
        str | None,
        typer.Option("--provider", help="Of a bundle in ONNX Runtime, such as cpu, cuda or dml. [default: cpu]"),
    ],
}
# The same for a command that runs no bundle; `measured_on` takes it.
PLACEMENT = {name: HARDWARE[name] for name in ("device", "dtype")}


def measured_on(device: str | None, dtype: str | None) -> "Placement":
    """Return where a command that measures in torch runs its model: on the fastest device, in float32.

    Raises:
        InputError: this machine lacks the device, or the device the dtype.

    Examples:
        >>> measured_on("cpu", None)
        Placement(device='cpu', dtype='float32')
    """
    from prosocial.core import Placement
    from prosocial.core.placement import AUTO, REFERENCE

    return Placement.choose(device or AUTO, dtype or REFERENCE.dtype)
