"""`prosocial tune`: runs one training stage of CoSAlign; runs under `accelerate launch` too."""

import contextlib
import os
import shutil
from pathlib import Path
from typing import Annotated

import typer

from prosocial.core.placement import AUTO, Placement

from .draw_options import TrainingSeed
from .output import progress_console, say_json
from .training_options import DeviceName, Dtype, DtypeName


def tune(
    base: Annotated[str, typer.Argument(help="The checkpoint to start from: a folder or a Hub id.")],
    rows: Annotated[Path, typer.Option(help="JSONL: messages with reply (sft), or with chosen and rejected (dpo).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new checkpoint.")],
    method: Annotated[str, typer.Option(help="sft or dpo.")] = "sft",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; may repeat.")
    ] = None,
    device: DeviceName = AUTO,
    dtype: DtypeName = Dtype.auto,
    seed: TrainingSeed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tune a model on replies (sft) or on preference pairs (dpo). A killed run resumes where it stopped.

    On several devices: accelerate launch -m prosocial.cli.main tune BASE --rows ROWS --method dpo -o OUT
    """
    from prosocial.core.files import alone, require_new, storage_errors
    from prosocial.editing.checkpoints import resolve_model
    from prosocial.recipes.cosalign.tuning import read_tuning, tune_rows
    from prosocial.recipes.workflow.progress import stage_progress

    scratch = out.with_name(f".{out.name}.checkpoints")
    is_first = os.environ.get("RANK", "0") == "0"  # accelerate starts one process per device
    console = progress_console(quiet=not is_first)
    tuning, placement = read_tuning(method, set_ or []), Placement.choose(device, dtype.value)
    placement = tuning.placed(placement)
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with (
        alone(out.with_name(f"{out.name}.checkpoints")) if is_first else contextlib.nullcontext(),
        stage_progress(console, name="tune", title=f"tune ({method})") as progress,
    ):
        require_new(out)
        summary = tune_rows(
            resolve_model(base),
            rows,
            out=out,
            tuning=tuning,
            seed=seed,
            scratch=scratch,
            placement=placement,
            on_start=lambda n_steps: progress.start(n_steps, method),
            on_step=progress.advance,
            on_note=console.print,
        )
        if is_first:
            shutil.rmtree(scratch)
    if is_first:
        console.print(f"{summary}: {out}")
        if as_json:
            say_json({"checkpoint": str(out), "method": method, "said": summary, **vars(placement)})
