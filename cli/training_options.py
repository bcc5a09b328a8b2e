"""Options that the commands which train something share."""

from enum import StrEnum
from typing import Annotated

import typer


class Dtype(StrEnum):
    """The dtype of a frozen model that something is trained on; what is trained is float32 in each case."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


DtypeName = Annotated[Dtype, typer.Option("--dtype", help="Of the checkpoint in memory.")]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, such as rank=8; may repeat.")
]
Temperature = Annotated[float, typer.Option(min=0.01, help="Of the replies that the model draws to train on.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Most tokens of such a reply.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
