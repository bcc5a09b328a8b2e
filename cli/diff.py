"""The command that says what differs between two checkpoints."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from prosocial.editing import Checkpoint, compare_weights, resolve_model
from prosocial.editing.edits.difference import CheckpointDifference, TensorDifference

DIFFERENT = 1


def diff(
    first: Annotated[str, typer.Argument(help="The checkpoint to measure from: a folder or a Hub id.")],
    second: Annotated[str, typer.Argument(help="The checkpoint to measure to: a folder or a Hub id.")],
    top: Annotated[int, typer.Option(min=1, help="How many tensors and layers the table shows.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say which weights differ, and by how much: exit code 0 if none does, 1 if any does."""
    found = compare_weights(*(Checkpoint.open(resolve_model(place)) for place in (first, second)))
    if as_json:
        typer.echo(json.dumps(found.to_json(), ensure_ascii=False, allow_nan=False))
    else:
        _show(found, first, second, top)
    if not found.same:
        raise typer.Exit(DIFFERENT)


def _show(found: CheckpointDifference, first: str, second: str, top: int) -> None:
    console = Console(soft_wrap=True)
    for label, names in ((f"only in {first}", found.only_first), (f"only in {second}", found.only_second)):
        for name in names:
            console.print(escape(f"{label}: {name}"))
    for name, one, other in found.reshaped:
        console.print(escape(f"other shape: {name} {one} -> {other}"))
    if found.config:
        console.print(escape(f"config.json differs in: {', '.join(found.config)}"))
    if found.changed:
        console.print(_tensors(found.changed[:top], len(found.changed)), _layers(found.layers, top))
    verdict = "the same weights, bit for bit" if found.same else "the weights differ"
    console.print(f"{verdict}: {found.n_same:,} tensors equal, {len(found.changed):,} changed")


def _tensors(rows: tuple[TensorDifference, ...], n_changed: int) -> Table:
    table = Table(Column("tensor", overflow="fold"), "dtype", "change/norm", "max abs", "elements")
    table.title = f"the {len(rows)} of {n_changed} tensors that changed most"
    for row in rows:
        dtype = row.dtypes[0] if row.dtypes[0] == row.dtypes[1] else " -> ".join(row.dtypes)
        share = "?" if row.changed_share is None else f"{row.changed_share:.1%}"
        table.add_row(escape(row.name), dtype, _number(row.relative_change), _number(row.max_abs), share)
    return table


def _layers(layers: dict[str, float], top: int) -> Table:
    table = Table("layer", "change/norm", title=f"layers, of {len(layers)} changed")
    for layer, share in list(layers.items())[:top]:
        table.add_row(escape(layer), _number(share))
    return table


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.3g}"
