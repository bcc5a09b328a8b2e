"""The command `diff`: reports the differences between two checkpoints, bundles or other folders with tensors."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from prosocial.editing import resolve_model
from prosocial.editing.edits.difference import CheckpointDifference, TensorDifference

from .output import result_console, say_json

DIFFERENT = 1


def diff(
    first: Annotated[str, typer.Argument(help="The reference: a checkpoint, bundle or steered model, or a Hub id.")],
    second: Annotated[str, typer.Argument(help="The other one: a folder or a Hub id.")],
    top: Annotated[int, typer.Option(min=1, help="Number of tensors and layers in the tables.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Report which weights differ, and by how much. Exit code: 0 if none differ, 1 if any do.

    Of bundles and steered models, tensors of graph, gate and head and all other files are compared too.
    """
    from prosocial.recipes.inspection.differences import compare_folders

    difference = compare_folders(resolve_model(first), resolve_model(second))
    if as_json:
        say_json(difference.to_json())
    else:
        _show(difference, first, second, top)
    if not difference.same:
        raise typer.Exit(DIFFERENT)


def _show(difference: CheckpointDifference, first: str, second: str, top: int) -> None:
    console = result_console(soft_wrap=True)
    for label, names in ((f"only in {first}", difference.only_first), (f"only in {second}", difference.only_second)):
        for name in names:
            console.print(escape(f"{label}: {name}"))
    for name, one, other in difference.reshaped:
        console.print(escape(f"other shape: {name} {one} -> {other}"))
    for note in (*difference.quantised, *difference.files, *difference.redundant):
        console.print(escape(note))
    if difference.config:
        console.print(escape(f"config.json differs in: {', '.join(difference.config)}"))
    if difference.changed:
        console.print(_tensors(difference.changed[:top], len(difference.changed)), _layers(difference.layers, top))
    verdict = "the same weights, bit for bit" if difference.same_weights else "the weights differ"
    verdict += ", other files differ" if difference.files and difference.same_weights else ""
    console.print(f"{verdict}: {difference.n_same:,} tensors equal, {len(difference.changed):,} changed")


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
