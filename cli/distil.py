"""`prosocial distil`: a compact head from a reward model."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from prosocial.core import Placement
from prosocial.core.placement import AUTO

from .draw_options import TrainingSeed
from .output import progress_console, say_json
from .training_options import DeviceName, Dtype, DtypeName, Json, MaxNewTokens, Overrides, Temperature


def distil_command(
    edited: Annotated[str, typer.Argument(help="The edited checkpoint: a folder or a Hub id.")],
    reward: Annotated[Path, typer.Option(help="The reward model of this checkpoint, as `reward train` writes it.")],
    pairs: Annotated[Path, typer.Option(help="Pairs of replies (JSONL), such as those it was trained on.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new folder.")],
    set_: Overrides = [],  # noqa: B006 - typer reads it, nobody changes it
    temperature: Temperature = 1.0,
    max_new_tokens: MaxNewTokens = 64,
    device: DeviceName = AUTO,
    dtype: DtypeName = Dtype.auto,
    seed: TrainingSeed = 0,
    as_json: Json = False,
) -> None:
    """Distil a reward model into the compact head, and measure how much it explains. A killed run resumes.

    Decode at the strength that it is distilled for: beta = 1 / inverse_beta, as `prosocial assemble` does by default.
    """
    from prosocial.core.chat import ChatTokenizer
    from prosocial.core.files import new_folder, require_new
    from prosocial.editing.checkpoints import load_model, resolve_model
    from prosocial.editing.checkpoints.fingerprint import fingerprint
    from prosocial.recipes.reading.settings import read_settings
    from prosocial.recipes.workflow.progress import stage_progress
    from prosocial.training import DistilTraining, RewardModel, distil, read_pairs
    from prosocial.training.reply_sampling import ReplySampling
    from prosocial.training.reward.model import read_reward_config

    require_new(out)
    placement = Placement.choose(device, dtype.value)
    training, folder = read_settings(DistilTraining, set_), resolve_model(edited)
    digest = fingerprint(folder)
    config = read_reward_config(reward, checkpoint_fingerprint=digest)
    given, console = read_pairs(pairs, attributes=config.attributes), progress_console()
    scratch = out.with_name(f".{out.name}.states")
    with stage_progress(console, name="head", title="distil the compact head") as progress, new_folder(out) as aside:
        model = load_model(folder, dtype=placement.torch_dtype, device=placement.device)
        distilled = distil(
            RewardModel.load(reward, model, checkpoint_fingerprint=digest),
            given,
            tokenizer=ChatTokenizer(folder),
            training=training,
            sampling=ReplySampling(temperature=temperature, max_new_tokens=max_new_tokens),
            seed=seed,
            scratch=scratch,
            progress=progress,
        )
        distilled.save(aside, checkpoint_fingerprint=digest)
    shutil.rmtree(scratch, ignore_errors=True)
    console.print(f"{distilled.summary}: {out}")
    if as_json:
        found = {"head": str(out), "said": distilled.summary, "attributes": list(config.attributes)} | vars(placement)
        say_json(found | distilled.to_json())
