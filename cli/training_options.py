"""Options that the commands which run or train a model share."""

from enum import StrEnum
from typing import Annotated

import typer


class Dtype(StrEnum):
    """The dtype of a model in memory; what is trained beside it is float32 in each case."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


# With these two a command calls `Placement.choose(device, dtype.value)` before its first slow step.
DeviceName = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps; auto: CUDA, then MPS, then the CPU.")
]
DtypeName = Annotated[
    Dtype, typer.Option("--dtype", help="Of the model in memory; auto: bfloat16 where the device computes in it.")
]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, such as rank=8; may repeat.")
]
Temperature = Annotated[float, typer.Option(min=0.01, help="Of the replies that the model draws to train on.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Most tokens of such a reply.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
