"""The command that compares two models on the same probes: compare."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from .judge_option import FORMS

if TYPE_CHECKING:
    from prosocial.evaluation import ComparisonSettings

EXIT_CODES = {"worse": 1, "cannot say": 3}


def compare(
    base: Annotated[str, typer.Argument(help="A checkpoint, steered model or bundle: the reference.")],
    edited: Annotated[str, typer.Argument(help="What is compared with it.")],
    probes: Annotated[
        str,
        typer.Option(help="JSONL, a table of a public set, its name (such as JailbreakBench), or a Hub dataset."),
    ],
    judge: Annotated[str, typer.Option(help=FORMS)] = "refusal",
    judge_errors: Annotated[
        Path | None, typer.Option(help="JSON: what the judge said of labelled replies of each model.")
    ] = None,
    margin: Annotated[float, typer.Option(help="Points of utility that may be lost.")] = 5.0,
    samples: Annotated[int, typer.Option(min=1, help="Replies per probe; more than 1 need a temperature.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the most likely reply.")] = 0.0,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens per reply; else the smaller of the two defaults.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw replies, each with models of its own.")] = 1,
    ray: Annotated[str | None, typer.Option(help="Address of a Ray cluster, or local.")] = None,
    reveal: Annotated[bool, typer.Option("--reveal", help="Show harmful requests and replies in clear.")] = False,
    eval_logs: Annotated[
        Path | None, typer.Option(help="Folder for one log per system that `inspect view` opens (prosocial[inspect]).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the comparison; one that was killed goes on.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object (prosocial.report/1).")] = False,
) -> None:
    """Compare two models on the same probes, reply by reply.

    Exit code: 0; 1 if the second is clearly worse in any rate (a loss of utility inside --margin aside); 3 if a reply
    could not be judged.
    """
    from prosocial.editing import resolve_model
    from prosocial.evaluation import ComparisonSettings, load_probes
    from prosocial.evaluation.model_comparison import read_judge_errors
    from prosocial.recipes.labelling.judges import judge_named

    settings = ComparisonSettings(
        seed=seed,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        samples=samples,
        margin=margin / 100,
        judge_errors=read_judge_errors(judge_errors) if judge_errors else {},
        workers=workers,
        ray=ray,
        reveal=reveal,
    )
    asked, judging = load_probes(probes), judge_named(judge)
    console = Console(stderr=as_json)
    document = _with_progress(
        console,
        base=resolve_model(base),
        edited=resolve_model(edited),
        probes=asked,
        judge=judging,
        settings=settings,
        out=out,
        facts={"probes": Path(probes).name},
    )
    if eval_logs is not None:
        from prosocial.evaluation.inspect_ai.logs import write_eval_logs

        write_eval_logs(document, eval_logs)
    _tell(document, console, as_json, out)
    raise typer.Exit(exit_code(document))


def _tell(document: dict[str, Any], console: Console, as_json: bool, out: Path | None) -> None:
    if as_json:
        print(json.dumps(document, ensure_ascii=False, allow_nan=False))
        return
    from prosocial.evaluation import print_report

    print_report(document, console)
    if out is not None:
        console.print(f"page: {out / 'report.html'}", soft_wrap=True)


def _with_progress(console: Console, *, settings: "ComparisonSettings", **parts: Any) -> dict[str, Any]:
    from prosocial.evaluation import compare_models
    from prosocial.recipes.workflow.progress import stage_progress

    total = 2 * len(parts["probes"]) * settings.samples
    with stage_progress(console, name="compare", title=f"{total} replies") as progress:
        progress.start(total, f"{total} replies")
        seen = 0

        def advance(done: int, _: int) -> None:
            nonlocal seen
            progress.advance(done - seen)
            seen = done

        return compare_models(settings=settings, advance=advance, **parts)


def exit_code(document: dict[str, Any]) -> int:
    """Return 1 where the second model is clearly worse, 3 where a reply could not be judged, else 0."""
    if document["headline"]["tone"] == "bad":
        return EXIT_CODES["worse"]
    return EXIT_CODES["cannot say"] if any(document["comparison"]["n_unjudged"].values()) else 0
