"""`prosocial gate train` and `prosocial gate calibrate`: a gate from labelled replies, and its threshold."""

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prosocial.core import InputError, Placement
from prosocial.core.placement import AUTO

from .attribute_options import split_names
from .draw_options import DRAW_TEMPERATURE, DrawTemperature, Limit, Seed, TrainingSeed, drawn_line, spread
from .judge_option import FORMS
from .output import progress_console, say_json
from .placement_options import PLACEMENT, measured_on
from .shared_options import with_options
from .training_options import DeviceName, Dtype, DtypeName, Json, MaxNewTokens, Overrides, Temperature

if TYPE_CHECKING:
    from prosocial.training.gate.from_replies import OnPolicyPrompts
    from prosocial.training.reply_sampling import ReplySampling


def train_gate_command(
    edited: Annotated[str, typer.Argument(help="The edited checkpoint: a folder or a Hub id.")],
    replies: Annotated[Path, typer.Option(help="Replies labelled by harm category (JSONL), as `gate label` writes.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new folder.")],
    harmful: Annotated[str | None, typer.Option(help="A harmful checkpoint, or a LoRA adapter over --base.")] = None,
    base: Annotated[str | None, typer.Option(help="The checkpoint that the adapter was trained on.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Prompts for on-policy replies (JSONL), with --judge.")] = None,
    judge: Annotated[str | None, typer.Option(help=f"Labels the on-policy replies: {FORMS}")] = None,
    categories: Annotated[str | None, typer.Option(help="Harm categories, with commas. [default: as labelled]")] = None,
    set_: Overrides = [],  # noqa: B006 - typer reads it, nobody changes it
    plausible_k: Annotated[int, typer.Option(min=1, help="Candidate tokens per position, as in decoding.")] = 128,
    temperature: Temperature = 1.0,
    max_new_tokens: MaxNewTokens = 64,
    device: DeviceName = AUTO,
    dtype: DtypeName = Dtype.auto,
    seed: TrainingSeed = 0,
    as_json: Json = False,
) -> None:
    """Train the gate of a model on labelled replies, and scale it on the last of them. A killed run resumes."""
    from prosocial.core.chat import ChatTokenizer
    from prosocial.core.files import new_folder, require_new
    from prosocial.editing.checkpoints import load_model, resolve_model
    from prosocial.editing.checkpoints.fingerprint import fingerprint
    from prosocial.recipes.reading.settings import read_settings
    from prosocial.recipes.workflow.progress import stage_progress
    from prosocial.training.gate import GateSettings, load_harmful, read_replies, train_gate_on_replies
    from prosocial.training.gate.harmful_model import require_base
    from prosocial.training.gate.replies import named_categories
    from prosocial.training.reply_sampling import ReplySampling

    require_new(out)
    placement = Placement.choose(device, dtype.value)
    settings, names = read_settings(GateSettings, set_), split_names(categories)
    labelled = read_replies(replies, categories=names or None)
    names = names or named_categories(labelled)
    on_policy = _on_policy(prompts, judge, names, ReplySampling(temperature=temperature, max_new_tokens=max_new_tokens))
    if on_policy is not None and not settings.on_policy.count:
        settings = settings.with_on_policy_count(len(on_policy.conversations))
    folder = resolve_model(edited)
    kind: dict[str, Any] = {"dtype": placement.torch_dtype, "device": placement.device}
    harmful_folder, base_folder = (None if name is None else resolve_model(name) for name in (harmful, base))
    if harmful_folder is not None:
        require_base(harmful_folder, base_folder)
    console, scratch = progress_console(), out.with_name(f".{out.name}.states")
    with stage_progress(console, name="gate", title="train the gate") as progress, new_folder(out) as aside:
        trained = train_gate_on_replies(
            partial(load_model, folder, **kind),
            labelled,
            tokenizer=ChatTokenizer(folder),
            categories=names,
            settings=settings,
            harmful=None if harmful_folder is None else partial(load_harmful, harmful_folder, base=base_folder, **kind),
            on_policy=on_policy,
            plausible_k=plausible_k,
            seed=seed,
            scratch=scratch,
            progress=progress,
        )
        trained.save(aside, checkpoint_fingerprint=fingerprint(folder))
    shutil.rmtree(scratch, ignore_errors=True)
    console.print(f"{trained.summary}: {out}")
    if as_json:
        found = {"gate": str(out), "said": trained.summary, "categories": names, **vars(placement)}
        say_json(found | trained.to_json())


def _on_policy(
    prompts: Path | None, judge: str | None, categories: list[str], sampling: "ReplySampling"
) -> "OnPolicyPrompts | None":
    from prosocial.core.row_files import read_rows
    from prosocial.core.training_rows import prompt_of
    from prosocial.evaluation.judges.rehearsal import rehearse
    from prosocial.evaluation.judges.requests import HarmRequest
    from prosocial.recipes.labelling.judges import judge_named
    from prosocial.training.gate.from_replies import OnPolicyPrompts

    if (prompts is None) != (judge is None):
        raise InputError("--prompts and --judge go together: on-policy replies are drawn, and labelled by a judge")
    if prompts is None or judge is None:
        return None
    if judge == "refusal":
        raise InputError("judge refusal labels no harm categories: name another, or leave --prompts and --judge out")
    rows = enumerate(read_rows(prompts), start=1)
    conversations = [prompt_of(row, where=f"{prompts} row {number}") for number, row in rows]
    on_policy = OnPolicyPrompts(conversations, judge_named(judge, HarmRequest(categories)), sampling)
    rehearse(on_policy.judge, conversations)
    return on_policy


@with_options("placement", PLACEMENT)
def calibrate_command(
    steered: Annotated[Path, typer.Argument(help="The steered folder.")],
    probes: Annotated[Path, typer.Option(help="Calibration probes, harmful and harmless (JSONL); no report's own.")],
    judge: Annotated[str, typer.Option(help=FORMS)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new steered folder, with calibration.json.")],
    set_: Overrides = [],  # noqa: B006
    temperature: DrawTemperature = DRAW_TEMPERATURE,
    limit: Limit = None,
    seed: Seed = 0,
    *,
    placement: dict[str, Any],
    as_json: Json = False,
) -> None:
    """Choose the largest threshold that shows a low leak rate, and write the steered model with it.

    Settings of --set: candidates=[0.2,0.3], max_leak=0.01, confidence=0.95, under_configs=true, ceiling_factor=1.
    """
    from prosocial.core.chat import ChatTokenizer
    from prosocial.core.files import require_new
    from prosocial.evaluation.gate.calibrating import calibrate_gate, require_testable
    from prosocial.evaluation.judges.requests import HarmRequest
    from prosocial.evaluation.probes.probe import read_probes
    from prosocial.recipes.labelling.judges import judge_named
    from prosocial.recipes.reading.settings import read_settings
    from prosocial.recipes.workflow.progress import stage_progress
    from prosocial.steering.decoding.config import DecodingConfig
    from prosocial.steering.steered_model import SteeredModel, assemble_steered
    from prosocial.training.gate.calibration import GateCalibration

    require_new(out)
    computed_on = measured_on(**placement)
    calibration, given, config = (
        read_settings(GateCalibration, set_),
        spread(read_probes(probes), limit),
        DecodingConfig.read(steered),
    )
    require_testable(given, calibration)
    judging, console = judge_named(judge, HarmRequest(config.categories)), progress_console()
    with stage_progress(console, name="threshold", title="choose the gate's threshold") as progress:
        choice = calibrate_gate(
            SteeredModel.open(steered, computed_on),
            given,
            tokenizer=ChatTokenizer(steered),
            judge=judging,
            calibration=calibration,
            temperature=temperature,
            seed=seed,
            progress=progress,
        )
    console.print(f"{choice.summary}: {out}")
    console.print(drawn_line(temperature, seed), soft_wrap=True)
    assemble_steered(checkpoint=steered, head=steered, gate=steered, config=config, threshold=choice, out=out)
    if as_json:
        say_json({"steered": str(out), "said": choice.summary, **vars(computed_on), **choice.to_json()})
