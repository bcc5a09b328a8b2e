"""`prosocial sweep`: searches for the method, the scale and its spread over the model."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from prosocial.core import InputError

from .draw_options import DRAW_TEMPERATURE, DrawBatchSize, DrawMaxNewTokens, DrawTemperature, TrainingSeed, drawn_line
from .judge_option import FORMS
from .output import progress_console, result_console, say_json
from .placement_options import PLACEMENT, measured_on
from .shared_options import with_options
from .weights import parse_settings

if TYPE_CHECKING:
    from prosocial.evaluation import Probe
    from prosocial.evaluation.sweep import SearchSpace, Sweep, Trial


@with_options("placement", PLACEMENT)
def sweep(
    base: Annotated[str, typer.Argument(help="The checkpoint to edit: a folder or a Hub id.")],
    harmful: Annotated[
        list[str],
        typer.Option(help="A harmful checkpoint, LoRA adapter or saved vector; may repeat."),
    ],
    probes: Annotated[Path, typer.Option(help="Probes (JSONL): harmful, benign and twins.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the sweep; an existing sweep is resumed.")],
    judge: Annotated[str, typer.Option(help=f"The judge of the replies: {FORMS}")] = "refusal",
    trials: Annotated[int, typer.Option(min=1, help="Number of edits to try.")] = 40,
    methods: Annotated[str, typer.Option(help="Harm-vector methods, separated by commas.")] = "plain,top_k",
    max_scale: Annotated[float, typer.Option(help="Largest scale to try.")] = 6.0,
    spread: Annotated[
        bool, typer.Option(help="Also search how the scale is spread over layers, attention and MLP.")
    ] = True,
    setting: Annotated[
        list[str],
        typer.Option("--set", help="NAME=VALUE for a parameter of a method that is not searched; may repeat."),
    ] = [],  # noqa: B006 - typer only reads it
    max_kl: Annotated[float, typer.Option(help="First-token KL in nats at which a trial is stopped early.")] = 1.0,
    max_utility_loss: Annotated[
        float, typer.Option(help="Percentage points of utility that the best trial may lose.")
    ] = 3.0,
    probes_per_kind: Annotated[
        int,
        typer.Option(
            "--limit", "--probes-per-kind", min=1, help="Most probes of each kind, spread evenly over the file."
        ),
    ] = 200,
    temperature: DrawTemperature = DRAW_TEMPERATURE,
    max_new_tokens: DrawMaxNewTokens = None,
    batch_size: DrawBatchSize = 64,
    seed: TrainingSeed = 0,
    *,
    placement: dict[str, Any],
    pick: Annotated[str | None, typer.Option(help="Write this trial's checkpoint: a number, or best.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Search for the edit with the least harm at the least loss of utility. A killed sweep resumes where it stopped."""
    from prosocial.core.files import require_new, require_place
    from prosocial.editing import resolve_model
    from prosocial.editing.edits.record import RECORD_NAME
    from prosocial.evaluation import read_probes
    from prosocial.evaluation.sweep import Answering, Limits, Parents, Sweep, picked, print_sweep
    from prosocial.recipes.labelling.judges import judge_named

    if pick is not None and pick != "best" and not (pick.isdecimal() and int(pick) < trials):
        raise InputError(f"--pick should be best, or the number of a trial below {trials}, found {pick!r}")
    if pick is not None and pick != "best" and not (out / f"edited-{pick}" / RECORD_NAME).is_file():
        require_new(out / f"edited-{pick}")
    require_place(out, is_folder=True)
    computed_on = measured_on(**placement)
    console, limits = result_console(stderr=as_json), Limits(max_kl, max_utility_loss / 100)
    search = Sweep(
        Parents(resolve_model(base), tuple(map(resolve_model, harmful))),
        space=_space(methods, max_scale, spread=spread, given=parse_settings(setting)),
        probes=_spread(read_probes(probes), probes_per_kind),
        judge=judge_named(judge),
        out=out,
        limits=limits,
        answering=Answering(seed, temperature, max_new_tokens, batch_size),
        seed=seed,
        placement=computed_on,
    )
    ended = _run(search, trials, progress_console())
    document = search.document(ended)
    if as_json:
        say_json(document)
    else:
        print_sweep(document, console)
        console.print(drawn_line(temperature, seed, max_new_tokens), soft_wrap=True)
        console.print(f"plot of all trials: {out / 'sweep.html'}", soft_wrap=True)
    if pick is not None:
        _write(search, picked(ended, pick, max_utility_loss=limits.max_utility_loss), out, console)


def _space(methods: str, max_scale: float, *, spread: bool, given: dict[str, object]) -> "SearchSpace":
    from prosocial.evaluation.sweep import SearchSpace
    from prosocial.evaluation.sweep.space import SCALE_STEP

    names = tuple(dict.fromkeys(name.strip() for name in methods.split(",") if name.strip()))
    space = SearchSpace(names, scale=(SCALE_STEP, max_scale), spread=spread, given=given)
    taken = {parameter for name in names for parameter in space.given_to(name)}
    if unknown := given.keys() - taken:
        raise InputError(
            f"--set should name parameters of {', '.join(names)}, found {', '.join(sorted(unknown))}: leave them out"
        )
    return space


def _spread(probes: "Sequence[Probe]", most: int) -> "list[Probe]":
    """Return at most `most` probes of each kind, evenly over the file."""
    kinds = dict.fromkeys(probe.kind for probe in probes)
    chosen: list[Probe] = []
    for kind in kinds:
        group = [probe for probe in probes if probe.kind == kind and probe.attack is None]
        chosen += [group[index * len(group) // most] for index in range(most)] if len(group) > most else group
    return chosen


def _run(search: "Sweep", n_trials: int, console: Console) -> "list[Trial]":
    from prosocial.recipes.workflow.progress import stage_progress

    with stage_progress(console, name="sweep", title=f"{n_trials} trials") as progress:
        progress.start(n_trials, f"{n_trials} trials")
        return search.run(n_trials, on_trial=lambda trial: progress.advance())


def _write(search: "Sweep", trial: "Trial", out: Path, console: Console) -> None:
    folder = out / f"edited-{trial.number}"
    record = search.write(trial, folder)
    console.print(
        f"wrote trial {trial.number} to {folder}, bit-identical to the measured model "
        f"({record.result.fingerprint[:16]}); its vector (dual-use) is in {folder}-vector",
        soft_wrap=True,
    )
