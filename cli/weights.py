"""The commands about weights as they are: inspect, vector."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from prosocial.editing.checkpoints.source import resolve_model
from prosocial.editing.edits.inspection import describe_folder

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def inspect(
    path: Annotated[Path, typer.Argument(help="A checkpoint, a harm vector or a LoRA adapter.")],
    as_json: Json = False,
    fingerprint: Annotated[bool, typer.Option(help="Read all weights and print their fingerprint.")] = True,
) -> None:
    """Say what a folder is: tensors, dtypes, size, edits, fingerprints."""
    description = describe_folder(path, fingerprint=fingerprint)
    print_data(description, as_json, title=str(path))


def vector(
    base: Annotated[str, typer.Option(help="The base checkpoint: a folder or a Hub id.")],
    harmful: Annotated[str, typer.Option(help="The harmful checkpoint or LoRA adapter: a folder or a Hub id.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new vector folder.")],
    method: Annotated[str, typer.Option(help="plain, top_k (needs --density) or project (needs --utility).")] = "plain",
    density: Annotated[float | None, typer.Option(help="Share of elements that top_k keeps, in (0, 1].")] = None,
    utility: Annotated[Path | None, typer.Option(help="Vector folder whose direction project removes.")] = None,
    as_json: Json = False,
) -> None:
    """Make a harm vector from a base and a harmful checkpoint or LoRA adapter."""
    from prosocial.editing.vectors.adapter_config import CONFIG_NAME
    from prosocial.editing.vectors.adapter_source import vector_from_adapter
    from prosocial.editing.vectors.checkpoint_source import vector_from_checkpoints

    given: dict[str, object] = {"density": density, "utility": utility}
    parameters = {name: value for name, value in given.items() if value is not None}
    base_folder, harmful_folder = resolve_model(base), resolve_model(harmful)
    if (harmful_folder / CONFIG_NAME).is_file():
        vector_from_adapter(base=base_folder, adapter=harmful_folder, out=out, method=method, **parameters)
    else:
        vector_from_checkpoints(base=base_folder, harmful=harmful_folder, out=out, method=method, **parameters)
    print_data(describe_folder(out), as_json, title=f"wrote {out}")


def print_data(data: dict[str, Any], as_json: bool, *, title: str) -> None:
    """Print plain data as one JSON object or as a table."""
    if as_json:
        typer.echo(json.dumps(data, ensure_ascii=False, allow_nan=False))
        return
    table = Table(title=title, show_header=False)
    for key, value in data.items():
        table.add_row(key, _text(value))
    Console().print(table)


def _text(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list):
        return "\n".join(map(_text, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_text(item)}" for key, item in value.items()) or "none"
    return str(value)
