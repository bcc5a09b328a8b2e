"""`prosocial convert`: a GGUF file as a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from .output import warn
from .progress import byte_progress
from .training_options import Dtype
from .weights import Json, print_data


def convert(
    file: Annotated[Path, typer.Argument(help="A GGUF file with a whole causal language model.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new checkpoint folder.")],
    dtype: Annotated[Dtype, typer.Option(help="Of the checkpoint's weights.")] = Dtype.bfloat16,
    as_json: Json = False,
) -> None:
    """Convert a GGUF file of llama.cpp to a checkpoint that can be edited, with tokenizer, chat template and end ids.

    Quantised weights are dequantised: the checkpoint computes what the quantised model does, not what the original did.
    """
    from prosocial.editing import convert_gguf

    with byte_progress("convert", visible=not as_json) as progress:
        record = convert_gguf(file, out, dtype=dtype, progress=progress)
    print_data(record.to_json() | {"folder": str(out)}, as_json, title=f"wrote {out}")
    for warning in record.warnings:
        warn(f"warning: {warning}")
