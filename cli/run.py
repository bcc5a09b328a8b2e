"""`prosocial run`: runs a whole recipe."""

from pathlib import Path
from typing import Annotated

import typer

from .output import progress_console, result_console
from .training_options import Dtype


def run(
    recipe: Annotated[str, typer.Argument(help="A built-in recipe (quickstart) or the path of a YAML file.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the results.", show_default="runs/RECIPE")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe; may repeat.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where models run: auto, cpu, cuda, cuda:1 or mps. [default: the recipe's]")
    ] = None,
    dtype: Annotated[
        Dtype | None, typer.Option(help="Of the models that are trained on and drawn from. [default: the recipe's]")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    measure: Annotated[
        bool, typer.Option(help="For the plan, measure how fast your model computes here (a minute or two).")
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON; progress goes to stderr.")] = False,
    clean: Annotated[
        bool, typer.Option("--clean", help="Delete harm vectors and harmful checkpoints (dual-use) at the end.")
    ] = False,
    accept_code_change: Annotated[
        bool,
        typer.Option("--accept-code-change", help="Reuse results that differ only in the version of prosocial's code."),
    ] = False,
) -> None:
    """Run a whole recipe. Existing results are reused, and a killed run resumes where it stopped."""
    from prosocial.recipes.pipeline import run_recipe

    placed = [f"{name}={value}" for name, value in (("device", device), ("dtype", dtype)) if value is not None]
    code = run_recipe(
        recipe,
        out=out or Path("runs") / Path(recipe).stem,
        overrides=[*(set_ or []), *placed],
        dry_run=dry_run,
        measure=measure,
        clean=clean,
        accept_code_change=accept_code_change,
        json=json,
        console=result_console(),
        progress=progress_console(),
    )
    raise typer.Exit(code)
