"""The command `compare`: compares two models on the same probes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from .draw_options import DRAW_TEMPERATURE, DrawMaxNewTokens, DrawTemperature, Limit, Seed, drawn_line, spread
from .judge_option import FORMS
from .output import progress_console, result_console, say_json
from .placement_options import HARDWARE
from .shared_options import with_options

if TYPE_CHECKING:
    from prosocial.evaluation import ComparisonSettings

EXIT_CODES = {"worse": 1, "cannot say": 3}


@with_options("hardware", HARDWARE)
def compare(
    base: Annotated[str, typer.Argument(help="A checkpoint, steered model or bundle: the reference.")],
    edited: Annotated[str, typer.Argument(help="The model to compare with it.")],
    probes: Annotated[
        str,
        typer.Option(help="JSONL, a table of a public set, its name (such as JailbreakBench), or a Hub dataset."),
    ],
    judge: Annotated[str, typer.Option(help=FORMS)] = "refusal",
    judge_errors: Annotated[
        Path | None, typer.Option(help="JSON with the judge's verdicts on labelled replies of each model.")
    ] = None,
    margin: Annotated[float, typer.Option(help="Percentage points of utility that may be lost.")] = 5.0,
    samples: Annotated[
        int, typer.Option(min=1, help="Replies per probe; more than 1 needs a temperature above 0.")
    ] = 1,
    seed: Seed = 0,
    temperature: DrawTemperature = DRAW_TEMPERATURE,
    max_new_tokens: DrawMaxNewTokens = None,
    limit: Limit = None,
    *,
    hardware: dict[str, Any],
    workers: Annotated[
        int, typer.Option(min=1, help="Number of processes that generate replies; each loads the models.")
    ] = 1,
    ray: Annotated[str | None, typer.Option(help="Address of a Ray cluster, or local.")] = None,
    reveal: Annotated[bool, typer.Option("--reveal", help="Show harmful requests and replies unredacted.")] = False,
    eval_logs: Annotated[
        Path | None, typer.Option(help="Folder for one log per model, for `inspect view` (prosocial[inspect]).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the comparison; a killed comparison resumes.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object (prosocial.report/1).")] = False,
) -> None:
    """Compare two models reply by reply on the same probes.

    Exit code: 1 if the second model is significantly worse in any rate (a loss of utility within --margin does not
    count), 3 if a reply could not be judged, otherwise 0.
    """
    from prosocial.core.files import require_place
    from prosocial.editing import resolve_model
    from prosocial.evaluation import ComparisonSettings, Hardware, load_probes
    from prosocial.evaluation.model_comparison import read_judge_errors
    from prosocial.recipes.labelling.judges import judge_named

    for folder in (out, eval_logs):
        require_place(folder, is_folder=True)
    if eval_logs is not None:
        from prosocial.evaluation.inspect_ai.logs import write_eval_logs
    folders = {"base": resolve_model(base), "edited": resolve_model(edited)}
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
        hardware=Hardware.choose(folders.values(), **hardware),
    )
    loaded, judging = spread(load_probes(probes), limit), judge_named(judge)
    document = _with_progress(
        progress_console(),
        **folders,
        probes=loaded,
        judge=judging,
        settings=settings,
        out=out,
        facts={"probes": Path(probes).name},
    )
    if eval_logs is not None:
        write_eval_logs(document, eval_logs)
    _print(document, as_json, out)
    raise typer.Exit(exit_code(document))


def _print(document: dict[str, Any], as_json: bool, out: Path | None) -> None:
    if as_json:
        say_json(document)
        return
    from prosocial.evaluation import print_report

    console = result_console()
    print_report(document, console)
    facts = document["facts"]
    console.print(drawn_line(facts["temperature"], facts["seed"], facts["max_new_tokens"]), soft_wrap=True)
    if out is not None:
        console.print(f"page: {out / 'report.html'}", soft_wrap=True)


def _with_progress(console: Console, *, settings: "ComparisonSettings", **parts: Any) -> dict[str, Any]:
    from prosocial.evaluation import compare_models
    from prosocial.recipes.workflow.progress import stage_progress

    total = 2 * len(parts["probes"]) * settings.samples
    with stage_progress(console, name="compare", title=f"{total} replies") as progress:
        seen = 0

        def advance(done: int, _: int) -> None:
            nonlocal seen
            if not seen:
                progress.start(total, f"{total} replies")
            progress.advance(done - seen)
            seen = done

        return compare_models(settings=settings, advance=advance, **parts)


def exit_code(document: dict[str, Any]) -> int:
    """Return 1 if the second model is significantly worse, 3 if a reply could not be judged, else 0."""
    if document["headline"]["tone"] == "bad":
        return EXIT_CODES["worse"]
    return EXIT_CODES["cannot say"] if any(document["comparison"]["n_unjudged"].values()) else 0
