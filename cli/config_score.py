"""`prosocial config score`: scores models and baselines by CoSA-Score under safety configs."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from .draw_options import DRAW_TEMPERATURE, DrawMaxNewTokens, DrawTemperature, Seed, drawn_line, spread
from .judge_option import OWN
from .output import progress_console, result_console, say_json
from .placement_options import HARDWARE
from .shared_options import with_options

if TYPE_CHECKING:
    from prosocial.evaluation.cosa_score import Question, ScoredConfig, ScoreSettings
    from prosocial.evaluation.probes.probe import Probe


class ProtocolName(StrEnum):
    """The criterion by which a reply is unsafe."""

    HARM_SET = "harm-set"
    COMPLIANCE = "compliance"


class BaselineName(StrEnum):
    """Baselines that are scored in addition to each model."""

    IN_CONTEXT = "in-context"
    FIVE_SHOT = "5-shot"
    CASCADE = "cascade"
    CASCADE_ORACLE = "cascade-oracle"


@with_options("hardware", HARDWARE)
def score(
    models: Annotated[list[str], typer.Argument(help="Checkpoints, steered models or bundles.")],
    probes: Annotated[str, typer.Option(help="JSONL, a table of a public set, CoSApien, CoSAlign-Test, or a dataset.")],
    judge: Annotated[str, typer.Option(help=f"lab, endpoint:MODEL@URL, {OWN}.")],
    configs: Annotated[
        Path | None, typer.Option(help="JSONL of safety configs. [default: those of the bundle or of the probes]")
    ] = None,
    protocol: Annotated[
        ProtocolName,
        typer.Option(
            help="Compare the reply's harms with the allowed categories, or let a judge read the config's text."
        ),
    ] = ProtocolName.HARM_SET,
    baseline: Annotated[
        list[BaselineName] | None, typer.Option(help="A baseline to score in addition to each model; may repeat.")
    ] = None,
    shots: Annotated[
        Path | None, typer.Option(help="JSONL of five examples per config, for the baseline 5-shot.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "--count", min=1, help="Use this many probes, spread evenly. [default: all]"),
    ] = None,
    seed: Seed = 0,
    temperature: DrawTemperature = DRAW_TEMPERATURE,
    max_new_tokens: DrawMaxNewTokens = None,
    *,
    hardware: dict[str, Any],
    workers: Annotated[
        int, typer.Option(min=1, help="Number of processes that generate replies; each loads the models.")
    ] = 1,
    reveal: Annotated[bool, typer.Option("--reveal", help="Write harmful replies unredacted.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the scores; a killed scoring resumes.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object (prosocial.cosa_score/1).")] = False,
) -> None:
    """Score models under safety configs: CoSA-Score, and the rates of helpful safe and helpful unsafe replies.

    A bundle replies under its gate, a checkpoint with the config's text as system message (in-context). Exit code: 3 if
    a reply could not be judged, otherwise 0.
    """
    from prosocial.core.files import require_place
    from prosocial.evaluation import Hardware
    from prosocial.evaluation.cosa_score import ScoreSettings, questions_of, read_shots
    from prosocial.evaluation.cosa_score.cosa_score_document import n_unjudged
    from prosocial.evaluation.cosa_score.cosa_score_page import print_scores
    from prosocial.evaluation.cosa_score.questions import configs_of
    from prosocial.evaluation.judges.requests import ConfigRequest
    from prosocial.recipes.labelling.judges import judge_named

    require_place(out, is_folder=True)
    folders = _folders(models)
    chosen = spread(_load_probes(probes), limit)
    questions = questions_of(chosen, _configs(configs, folders, chosen))
    settings = ScoreSettings(
        protocol=protocol.value,
        baselines=tuple(each.value for each in baseline or ()),
        shots=read_shots(shots, configs_of(questions)) if shots else {},
        seed=seed,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        workers=workers,
        reveal=reveal,
        hardware=Hardware.choose(folders.values(), **hardware),
    )
    judging = judge_named(judge, ConfigRequest(protocol.value))
    parts = {"judge": judging, "out": out, "facts": {"probes": Path(probes).name}}
    document = _with_progress(progress_console(), folders, questions, settings, parts)
    if as_json:
        say_json(document)
    else:
        console = result_console()
        print_scores(document, console)
        console.print(drawn_line(temperature, seed, max_new_tokens), soft_wrap=True)
        if out is not None:
            console.print(f"page: {out / 'cosa_score.html'}", soft_wrap=True)
    raise typer.Exit(3 if n_unjudged(document) else 0)


def _folders(models: Sequence[str]) -> dict[str, Path]:
    """Return the models' folders by name; the name is the last part of the path."""
    from prosocial.core.errors import InputError
    from prosocial.editing.checkpoints.source import resolve_model

    folders = [resolve_model(model) for model in models]
    names = [folder.name for folder in folders]
    if len(set(names)) != len(names):
        raise InputError(f"models should be in folders with distinct names, found {', '.join(names)}: rename one")
    return dict(zip(names, folders, strict=True))


def _load_probes(source: str) -> "list[Probe]":
    from prosocial.evaluation.probes.loading import load_probes

    return load_probes(source)


def _configs(path: Path | None, folders: Mapping[str, Path], probes: "Sequence[Probe]") -> "list[ScoredConfig]":
    """Return the configs of a file, or else of the first bundle; none if the probes have configs of their own."""
    from prosocial.evaluation.cosa_score import bundle_configs, read_configs
    from prosocial.evaluation.cosa_score.public_sets import own_config
    from prosocial.steering.configs import COSA
    from prosocial.steering.decoding.config import DECODING_FILE, DecodingConfig

    steered = [DecodingConfig.read(folder) for folder in folders.values() if (folder / DECODING_FILE).is_file()]
    if path is not None:
        return read_configs(path, categories=steered[0].categories if steered else tuple(COSA.definitions))
    if not steered or any(own_config(probe) is not None for probe in probes):
        return []
    return bundle_configs(steered[0])


def _with_progress(
    console: Console,
    folders: Mapping[str, Path],
    questions: "Sequence[Question]",
    settings: "ScoreSettings",
    parts: Mapping[str, Any],
) -> dict[str, Any]:
    from prosocial.evaluation.cosa_score import score_models
    from prosocial.recipes.workflow.progress import stage_progress

    title = f"{len(questions)} questions to {len(folders)} models"
    with stage_progress(console, name="score", title=title) as progress:
        progress.start(None, title)
        seen, expected = 0, 0

        def advance(done: int, total: int) -> None:
            nonlocal seen, expected
            if total != expected:
                progress.start(total, title)
                seen, expected = 0, total
            progress.advance(done - seen)
            seen = done

        return score_models(folders, questions, settings=settings, advance=advance, **parts)
