"""The commands `edit` and `undo`."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from prosocial.core import InputError
from prosocial.editing import Checkpoint, EditPlan, EditRecord, Rounding, apply_edit, plan_edit, resolve_model
from prosocial.editing.checkpoints.source import open_headers
from prosocial.editing.edits.scaling import Scale, parse_ramp, parse_scale, read_coefficients

from .draw_options import HIGHEST_SEED
from .output import warn
from .progress import byte_progress
from .weights import Json, print_data


def edit(
    target: Annotated[str, typer.Argument(help="The checkpoint to edit: a folder or a Hub id.")],
    subtract: Annotated[Path, typer.Option(help="The harm vector to subtract.")],
    scale: Annotated[list[str] | None, typer.Option(help="A number from 0, or PATTERN=NUMBER; may repeat.")] = None,
    ramp: Annotated[
        str | None, typer.Option(help="START:END, linear over the layers; tensors outside the layers get START.")
    ] = None,
    scale_file: Annotated[
        Path | None, typer.Option(help="JSON or YAML file that maps tensor names to numbers.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The new checkpoint folder.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and show the edit, write nothing.")] = False,
    plan: Annotated[bool, typer.Option("--plan", hidden=True, help="The earlier name of --dry-run.")] = False,
    rounding: Annotated[
        str, typer.Option(help="nearest, or stochastic (preserves small edits in expectation).")
    ] = "nearest",
    seed: Annotated[int, typer.Option(min=0, max=HIGHEST_SEED, help="Seed of stochastic rounding.")] = 0,
    patch: Annotated[
        Path | None, typer.Option(help="Write a patch file from which undo can restore the target.")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Number of threads; the result does not depend on it. [default: one per core]"),
    ] = None,
    verify: Annotated[bool, typer.Option(help="Read the written files back and check them.")] = True,
    sync: Annotated[bool, typer.Option(help="Flush to disk before the folder is renamed to its final name.")] = True,
    link: Annotated[bool, typer.Option("--link", help="Hard-link weight files that have no edited tensor.")] = False,
    as_adapter: Annotated[
        int | None,
        typer.Option(metavar="RANK", min=1, help="Write a LoRA adapter of this rank instead of a checkpoint."),
    ] = None,
    leave_out: Annotated[
        bool, typer.Option("--leave-out", help="Omit edits that a LoRA adapter cannot represent.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Subtract a harm vector from a checkpoint and write a record with which the edit can be audited."""
    if plan:
        warn("warning: --plan is called --dry-run now, as in the other commands; --plan will be removed")
        dry_run = True
    if leave_out and as_adapter is None:
        raise InputError(
            "--leave-out should be used with --as-adapter RANK, since a checkpoint can represent every edit: add it"
        )
    if as_adapter is not None and (patch is not None or rounding != "nearest" or link):
        raise InputError(
            "--as-adapter should be used without --patch, --rounding and --link, which need a checkpoint: omit them"
        )
    checkpoint = open_headers(target) if dry_run else Checkpoint.open(resolve_model(target))
    planned = plan_edit(checkpoint, subtract, scale=_scale(scale, ramp, scale_file))
    if out is not None and as_adapter is None:
        planned.check_destination(out)
    if dry_run:
        print_data(_plan_data(planned, as_json), as_json, title=f"plan: {target} minus {subtract}")
        return
    if out is None:
        raise InputError("edit needs a new folder, -o OUT, or --dry-run to write nothing: neither was given")
    if as_adapter is not None:
        print_data(_write_adapter(planned, out, as_adapter, leave_out, as_json), as_json, title=f"wrote {out}")
        return
    chosen = Rounding(rounding, seed)  # type: ignore[arg-type]  # it rejects any other value
    with byte_progress("edit", visible=not as_json) as progress:
        record = apply_edit(
            planned,
            out,
            progress,
            threads=threads,
            rounding=chosen,
            verify=verify,
            link=link,
            sync=sync,
            patch=patch,
        )
    shown = _summary(record) | ({"notes": list(planned.notes)} if planned.notes else {})
    print_data(record.to_json() if as_json else shown, as_json, title=f"wrote {out}")
    _warn_swallowed(record)


def undo(
    edited: Annotated[Path, typer.Argument(help="The edited checkpoint, with its edit_record.json.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new folder.")],
    base: Annotated[str | None, typer.Option(help="The checkpoint that was edited: a folder or a Hub id.")] = None,
    patch: Annotated[Path | None, typer.Option(help="The patch file that was written with the edit.")] = None,
    as_json: Json = False,
) -> None:
    """Restore the checkpoint before an edit, bit for bit, and check it against the edit record."""
    from prosocial.editing import undo_edit

    fingerprint = undo_edit(edited, out, base=resolve_model(base) if base else None, patch=patch)
    print_data({"folder": str(out), "fingerprint": fingerprint}, as_json, title=f"restored {out}")


def _scale(numbers: Sequence[str] | None, ramp: str | None, file: Path | None) -> Scale:
    given = [item for item in (numbers or None, ramp, file) if item is not None]
    if len(given) != 1:
        raise InputError(
            f"edit needs exactly one of --scale, --ramp and --scale-file: {len(given) or 'none'} of them given"
        )
    if ramp is not None:
        return parse_ramp(ramp)
    return read_coefficients(file) if file is not None else parse_scale(numbers or [])


def _plan_data(planned: EditPlan, as_json: bool) -> dict[str, Any]:
    data = planned.to_json()
    if as_json:
        return data
    kinds = Counter(f"{row['action']} {row['dtype']} {tuple(row['shape'])}" for row in data.pop("tensors"))
    return data | {"shapes": [f"{kind}: {count}" for kind, count in sorted(kinds.items())]}


def _summary(record: EditRecord) -> dict[str, Any]:
    tensors = record.result.tensors.values()
    scales = [item for term in record.terms for item in term.coefficients]
    return {
        "coefficients": [f"{item.pattern or 'all'}: {item.decimal}, {len(item.tensors)} tensors" for item in scales],
        "n_changed": sum(tensor.changed for tensor in tensors),
        "n_tensors": len(tensors),
        "realised gain, least": min((item.gain for item in tensors if item.gain is not None), default=None),
        "cosine, least": min((item.cosine for item in tensors if item.cosine is not None), default=None),
        "relative error, largest": max(
            (item.relative_error for item in tensors if item.relative_error is not None), default=None
        ),
        "left unchanged by rounding, most": max(
            (item.unchanged_share for item in tensors if item.unchanged_share is not None), default=None
        ),
        "<edit, vector>": record.result.inner_product,
        "base_fingerprint": record.base.fingerprint,
        "fingerprint": record.result.fingerprint,
    }


def _write_adapter(planned: EditPlan, out: Path, rank: int, leave_out: bool, as_json: bool) -> dict[str, Any]:
    from prosocial.editing import write_adapter

    report = write_adapter(planned, out, rank=rank, leave_out=leave_out)
    if as_json:
        return report.to_json()
    kept = {name: f"rank {item.rank}, {item.energy:.1%}" for name, item in report.tensors.items()}
    return {
        "kind": "LoRA adapter that subtracts the vector",
        "energy kept": f"{report.energy:.1%} of the whole edit",
        "<adapter, vector>": report.inner_product,
        "tensors, with energy kept": [f"{name}: {text}" for name, text in kept.items()],
        "left out": report.left_out,
    }


def _warn_swallowed(record: EditRecord) -> None:
    swallowed = record.swallowed
    if swallowed:
        least = min(swallowed, key=lambda name: record.result.tensors[name].gain or 0.0)
        warn(
            f"warning: rounding removed more than a tenth of the edit in {len(swallowed)} tensors, most in {least} "
            f"(gain {record.result.tensors[least].gain:.2f}): use a larger scale, --rounding stochastic, or a target "
            "saved in float32"
        )
