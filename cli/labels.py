"""The groups `prosocial reward` and `prosocial gate`, and their labels: of preference pairs, and of replies."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from prosocial.core.errors import InputError

from .attribute_options import AttributeNames, Rubrics, chosen_attributes, split_names
from .gate import calibrate_command, train_gate_command
from .judge_option import OWN
from .output import result_console, say_json
from .reward_train import train_command

Out = Annotated[Path, typer.Option("--out", "-o", help="The labelled file (JSONL); the same command goes on with it.")]
JudgeName = Annotated[str, typer.Option(help=f"lab, classifier:MODEL, endpoint:MODEL@URL, {OWN}.")]
Second = Annotated[str | None, typer.Option(help="Another judge, to report how far the two agree.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

reward_app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="The reward model: label pairs, train on them."
)
gate_app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="The gate: label replies, train on them, choose its threshold."
)
reward_app.command("train", epilog="Example: prosocial reward train edited --pairs labelled.jsonl -o reward")(
    train_command
)
gate_app.command("train", epilog="Example: prosocial gate train edited --replies labelled.jsonl -o gate")(
    train_gate_command
)
gate_app.command(
    "calibrate",
    epilog="Example: prosocial gate calibrate steered --probes calibration.jsonl --judge lab -o calibrated",
)(calibrate_command)


@reward_app.command("label", epilog="Example: prosocial reward label pairs.jsonl --judge lab -o labelled.jsonl")
def label_pairs_command(
    pairs: Annotated[Path, typer.Argument(help="Rows with two replies each: first and second, or TRL's formats.")],
    out: Out,
    judge: JudgeName,
    second_judge: Second = None,
    attributes: AttributeNames = None,
    rubric: Rubrics = [],  # noqa: B006 - typer reads it, nobody changes it
    tie_margin: Annotated[float, typer.Option(min=0.0, help="Scores this close are a tie.")] = 0.05,
    as_json: Json = False,
) -> None:
    """Say for every pair and attribute which reply has more of it. A killed run goes on where it stopped."""
    from prosocial.core.row_files import read_rows
    from prosocial.evaluation.judges.requests import AttributeRequest
    from prosocial.recipes.labelling.judges import judge_named
    from prosocial.recipes.labelling.pairs import label_pairs

    chosen = chosen_attributes(attributes, rubric)
    request = AttributeRequest(chosen)
    judges = [judge_named(name, request) for name in (judge, second_judge) if name is not None]
    with _bar(len(read_rows(pairs)), as_json=as_json) as bar:
        result = label_pairs(
            pairs, out=out, judges=judges, attributes=chosen, tie_margin=tie_margin, on_row=lambda: bar.update(1)
        )
    _print(result, result["labels"], ("first", "second", "tie", "missing"), as_json=as_json)


@gate_app.command("label", epilog="Example: prosocial gate label replies.jsonl --judge lab -o labelled.jsonl")
def label_replies_command(
    replies: Annotated[Path, typer.Argument(help="Rows with a reply each: prompt and reply, or TRL's formats.")],
    out: Out,
    judge: JudgeName,
    second_judge: Second = None,
    categories: Annotated[str | None, typer.Option(help="Harm categories, with commas. [default: the lab's]")] = None,
    as_json: Json = False,
) -> None:
    """Say which harm categories every reply realises. A killed run goes on where it stopped.

    Exit code: 0, or 3 if the judge gave no verdict on some reply; such rows carry no label.
    """
    from prosocial.core.row_files import read_rows
    from prosocial.evaluation.judges.requests import CategoryRequest
    from prosocial.recipes.labelling.judges import judge_named
    from prosocial.recipes.labelling.replies import label_replies

    if categories is None and judge != "lab":
        raise InputError(f"judge {judge} should get the categories to look for: give --categories NAME,NAME")
    names = split_names(categories) or _lab_categories()
    request = CategoryRequest(names)
    judges = [judge_named(name, request) for name in (judge, second_judge) if name is not None]
    with _bar(len(read_rows(replies)), as_json=as_json) as bar:
        result = label_replies(replies, out=out, judges=judges, categories=names, on_row=lambda: bar.update(1))
    counts = {name: {"replies": count} for name, count in result["categories"].items()}
    _print(result, counts, ("replies",), as_json=as_json)
    if result["not_labelled"]:
        raise typer.Exit(3)


def _lab_categories() -> list[str]:
    from prosocial.recipes.lab.words import CATEGORIES

    return list(CATEGORIES)


def _bar(length: int, *, as_json: bool) -> Any:
    return typer.progressbar(length=length, label="labelled", hidden=as_json)


def _print(
    result: Mapping[str, Any], counts: Mapping[str, Mapping[str, int]], columns: Sequence[str], *, as_json: bool
) -> None:
    if as_json:
        say_json(result)
        return
    table = Table("name", *columns, *(("agreement", "kappa", "on") if result["agreement"] else ()))
    for name, row in counts.items():
        cells = [str(row.get(column, 0)) for column in columns]
        if result["agreement"]:
            both = result["agreement"][name]
            cells += [_number(both["share"], "{:.0%}"), _number(both["kappa"], "{:.2f}"), str(both["n"])]
        table.add_row(name, *cells)
    console = result_console()
    console.print(table)
    if result.get("not_labelled"):
        console.print(f"{result['not_labelled']} replies got no verdict and carry no label")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
