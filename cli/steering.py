"""`prosocial steering`: measures the effect of preferences over a grid."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .attribute_options import Rubrics, scored_attributes
from .draw_options import (
    DRAW_TEMPERATURE,
    DrawBatchSize,
    DrawMaxNewTokens,
    DrawTemperature,
    Limit,
    Seed,
    drawn_line,
    spread,
)
from .judge_option import FORMS
from .output import result_console, say, say_json
from .placement_options import HARDWARE
from .shared_options import with_options


@with_options("hardware", HARDWARE)
def steering(
    model: Annotated[Path, typer.Argument(help="The bundle or steered model.")],
    probes: Annotated[Path, typer.Option(help="Requests on whose replies attributes can be scored (JSONL).")],
    judge: Annotated[str, typer.Option(help=f"The judge; it must score every attribute: {FORMS}")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for steering.json and steering.html, with Pareto plots.")
    ] = None,
    rubric: Rubrics = [],  # noqa: B006 - typer only reads it
    edges: Annotated[
        str, typer.Option(help="Weights along the edge between each two attributes, separated by commas.")
    ] = "0,0.5,1",
    temperature: DrawTemperature = DRAW_TEMPERATURE,
    seed: Seed = 0,
    max_new_tokens: DrawMaxNewTokens = None,
    limit: Limit = None,
    batch_size: DrawBatchSize = 64,
    *,
    hardware: dict[str, Any],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure the effect of preferences: hypervolume, gains, and the change with every step of every weight.

    Exit code: 1 if a step of a weight lowers the mean score of its attribute, otherwise 0.
    """
    from prosocial.core.errors import InputError
    from prosocial.core.files import require_place
    from prosocial.evaluation import Hardware, open_system
    from prosocial.evaluation.judges.requests import AttributeRequest
    from prosocial.evaluation.probes.probe import read_probes
    from prosocial.evaluation.steering_scores import measure_steering, write_steering_page
    from prosocial.recipes.labelling.judges import judge_named

    try:
        levels = [float(level) for level in edges.split(",")]
    except ValueError:
        raise InputError(f"--edges should be numbers separated by commas, such as 0,0.5,1, found {edges!r}") from None
    require_place(out, is_folder=True)
    given, computed_on = spread(read_probes(probes), limit), Hardware.choose([model], **hardware)
    system = open_system(model, computed_on)
    names = () if system.engine.config is None else system.engine.config.attributes
    document = measure_steering(
        system,
        given,
        judge=judge_named(judge, AttributeRequest(scored_attributes(names, rubric))),
        edge_levels=levels,
        temperature=temperature,
        seed=seed,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
    ) | {"computed_on": computed_on.to_json()}
    if out is not None:
        write_steering_page(out, document)
    scores = next(iter(document["systems"].values()))
    if as_json:
        say_json(document)
    else:
        _print(document, scores, result_console())
        say(drawn_line(temperature, seed, max_new_tokens))
    raise typer.Exit(0 if scores["monotone"] else 1)


def _print(document: dict[str, Any], scores: dict[str, Any], console: Console) -> None:
    from prosocial.evaluation.report import wording

    console.print(
        f"{len(document['preferences'])} preferences, {document['n_probes']} probes each: hypervolume "
        f"{scores['hypervolume']:.4f} from {document['reference']}, "
        f"mean inner product {scores['mean_inner_product']:.4f}"
    )
    table = Table(box=None)
    for name in ("attribute", "gain at its corner", "steps of its weight"):
        table.add_column(name)
    for name in document["attributes"]:
        gain = scores["gains"][name]
        steps = [wording.signed(step["change"]["estimate"]) for step in scores["steps"] if step["attribute"] == name]
        limits = wording.limits(gain, difference=True)
        table.add_row(name, f"{wording.signed(gain['estimate'])} {limits}", ", ".join(steps))
    console.print(table)
