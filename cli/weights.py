"""The commands about weights: inspect, vector, edit."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from prosocial.editing.checkpoints.folder import Checkpoint
from prosocial.editing.checkpoints.source import open_headers, resolve_model
from prosocial.editing.edits.inspection import describe_folder, describe_model
from prosocial.editing.edits.plan import EditPlan, plan_edit
from prosocial.editing.edits.scaling import parse_scale
from prosocial.editing.errors import InputError
from prosocial.editing.files import require_outside

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def inspect(
    path: Annotated[str, typer.Argument(help="A checkpoint, harm vector or LoRA adapter; or a Hub id (headers only).")],
    as_json: Json = False,
    fingerprint: Annotated[bool, typer.Option(help="Read all weights and print their fingerprint.")] = True,
) -> None:
    """Say what a folder is: tensors, dtypes, size, edits, fingerprints."""
    description = describe_model(path, fingerprint=fingerprint)
    _print(description, as_json, title=path)


def vector(
    base: Annotated[str, typer.Option(help="The base checkpoint: a folder or a Hub id.")],
    harmful: Annotated[str, typer.Option(help="The harmful checkpoint or LoRA adapter: a folder or a Hub id.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new vector folder.")],
    method: Annotated[str, typer.Option(help="plain, top_k (needs --density) or project (needs --utility).")] = "plain",
    density: Annotated[float | None, typer.Option(help="Share of elements that top_k keeps, in (0, 1].")] = None,
    utility: Annotated[Path | None, typer.Option(help="Vector folder whose direction project removes.")] = None,
    as_json: Json = False,
) -> None:
    """Make a harm vector from a base and a harmful checkpoint or LoRA adapter."""
    from prosocial.editing.vectors.adapter_config import CONFIG_NAME
    from prosocial.editing.vectors.adapter_source import vector_from_adapter
    from prosocial.editing.vectors.checkpoint_source import vector_from_checkpoints

    given: dict[str, object] = {"density": density, "utility": utility}
    parameters = {name: value for name, value in given.items() if value is not None}
    base_folder, harmful_folder = resolve_model(base), resolve_model(harmful)
    require_outside(out, (base_folder, harmful_folder))
    if (harmful_folder / CONFIG_NAME).is_file():
        vector_from_adapter(base=base_folder, adapter=harmful_folder, out=out, method=method, **parameters)
    else:
        vector_from_checkpoints(base=base_folder, harmful=harmful_folder, out=out, method=method, **parameters)
    _print(describe_folder(out), as_json, title=f"wrote {out}")


def edit(
    target: Annotated[str, typer.Argument(help="The checkpoint to edit: a folder or a Hub id.")],
    subtract: Annotated[Path, typer.Option(help="The harm vector to subtract.")],
    scale: Annotated[list[str], typer.Option(help="A number from 0, or PATTERN=NUMBER (repeat it).")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The new checkpoint folder.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Check and show what would be done, write nothing.")] = False,
    as_adapter: Annotated[
        int | None,
        typer.Option(metavar="RANK", min=1, help="Write a LoRA adapter of this rank instead of a checkpoint."),
    ] = None,
    leave_out: Annotated[
        bool, typer.Option("--leave-out", help="Leave out of the adapter what none can carry.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Subtract a harm vector from a checkpoint: plan, check, apply, record."""
    checkpoint = open_headers(target) if plan else Checkpoint.open(resolve_model(target))
    planned = plan_edit(checkpoint, subtract, scale=parse_scale(scale))
    if leave_out and as_adapter is None:
        raise InputError("--leave-out should go with --as-adapter RANK: a checkpoint can hold every edit")
    if out is not None and as_adapter is None:
        planned.check_destination(out)
    if plan:
        _print(_plan_data(planned, as_json), as_json, title=f"plan: {target} minus {subtract}")
        return
    if out is None:
        raise InputError(
            "an edit should be given a new folder with -o OUT, or --plan to write nothing: neither was given"
        )
    if as_adapter is not None:
        _print(_write_adapter(planned, out, as_adapter, leave_out, as_json), as_json, title=f"wrote {out}")
        return
    _print(_apply(planned, out, as_json), as_json, title=f"wrote {out}")


def _plan_data(planned: EditPlan, as_json: bool) -> dict[str, Any]:
    data = planned.to_json()
    return data if as_json else {key: value for key, value in data.items() if key != "tensors"}


def _apply(planned: EditPlan, out: Path, as_json: bool) -> dict[str, Any]:
    from prosocial.editing.edits.apply import apply_edit

    record = apply_edit(planned, out)
    if as_json:
        return record.to_json()
    gains = [tensor.gain for tensor in record.result.tensors.values() if tensor.gain is not None]
    return {
        "n_changed": sum(tensor.changed for tensor in record.result.tensors.values()),
        "n_tensors": len(record.result.tensors),
        "lowest realised gain": min(gains, default=None),
        "<edit, vector>": record.result.inner_product,
        "base_fingerprint": record.base.fingerprint,
        "fingerprint": record.result.fingerprint,
    }


def _write_adapter(planned: EditPlan, out: Path, rank: int, leave_out: bool, as_json: bool) -> dict[str, Any]:
    from prosocial.editing.edits.adapter import write_adapter

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


def _print(data: dict[str, Any], as_json: bool, *, title: str) -> None:
    if as_json:
        typer.echo(json.dumps(data, ensure_ascii=False, allow_nan=False))
        return
    table = Table(title=title, show_header=False)
    for key, value in data.items():
        table.add_row(key, _text(value))
    Console().print(table)


def _text(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list):
        return "\n".join(map(_text, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_text(item)}" for key, item in value.items()) or "none"
    return str(value)
