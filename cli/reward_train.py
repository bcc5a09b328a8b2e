"""`prosocial reward train`: trains a reward model on labelled pairs; runs under `accelerate launch` too."""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from prosocial.core.placement import AUTO, Placement

from .attribute_options import AttributeNames, Rubrics, chosen_attributes
from .draw_options import TrainingSeed
from .output import progress_console, say_json
from .training_options import DeviceName, Dtype, DtypeName, Json, Overrides


def train_command(
    base: Annotated[str, typer.Argument(help="The checkpoint that the adapter is trained on: a folder or a Hub id.")],
    pairs: Annotated[Path, typer.Option(help="Labelled pairs (JSONL), as `prosocial reward label` writes them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new folder, in the format of peft.")],
    attributes: AttributeNames = None,
    rubric: Rubrics = [],  # noqa: B006 - typer only reads it
    set_: Overrides = [],  # noqa: B006
    device: DeviceName = AUTO,
    dtype: DtypeName = Dtype.auto,
    seed: TrainingSeed = 0,
    as_json: Json = False,
) -> None:
    """Train a preference-conditioned reward model (PBLoRA). A killed run resumes where it stopped.

    On several devices: accelerate launch -m prosocial.cli.main reward train BASE --pairs PAIRS -o OUT
    """
    from prosocial.core.files import new_folder, require_new
    from prosocial.editing.checkpoints import resolve_model
    from prosocial.recipes.reading.settings import read_settings
    from prosocial.recipes.steering.reward_training import train_on_pairs
    from prosocial.recipes.steering.schema import RewardSettings
    from prosocial.recipes.workflow.progress import stage_progress
    from prosocial.training.reward.processes import is_first, joined

    require_new(out)
    placement = Placement.choose(device, dtype.value)
    settings = read_settings(RewardSettings, set_)
    chosen = chosen_attributes(attributes, rubric, betas=settings.beta)
    checkpoint = out.with_name(f".{out.name}.checkpoint.safetensors")
    with joined(placement.device) as own_device:
        console = progress_console(quiet=not is_first())
        with (
            stage_progress(console, name="reward", title="train the reward model") as progress,
            new_folder(out) if is_first() else contextlib.nullcontext(out) as folder,
        ):
            summary = train_on_pairs(
                resolve_model(base),
                pairs,
                attributes=chosen,
                settings=settings,
                out=folder,
                checkpoint=checkpoint,
                placement=replace(placement, device=own_device),
                seed=seed,
                progress=progress,
                on_note=console.print,
            )
        if is_first():
            checkpoint.unlink(missing_ok=True)
            console.print(f"{summary}: {out}")
            if as_json:
                say_json({"reward": str(out), "said": summary})
