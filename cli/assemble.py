"""`prosocial assemble`: a steered model from an edited checkpoint, its head and its gate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prosocial.core.errors import InputError

from .output import say, say_json
from .training_options import Json

if TYPE_CHECKING:
    from prosocial.evaluation.gate.threshold_choice import ThresholdChoice


def assemble_command(
    edited: Annotated[str, typer.Argument(help="The edited checkpoint: a folder or a Hub id.")],
    head: Annotated[Path, typer.Option(help="The head of this checkpoint, as `distil` writes it.")],
    gate: Annotated[Path, typer.Option(help="The gate of this checkpoint, as `gate train` writes it.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new steered folder.")],
    decoding: Annotated[
        Path | None, typer.Option(help="YAML or JSON with keys of a recipe's `decoding`, such as fallback.")
    ] = None,
    threshold: Annotated[
        str | None, typer.Option(help="A number in [0, 1], or calibration.json. [default: 0.5]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Put a steered model together: checkpoint, head, gate and decoding config in one folder."""
    from prosocial.core.files import require_new
    from prosocial.editing.checkpoints import resolve_model
    from prosocial.recipes.steering.decoding_file import read_decoding
    from prosocial.steering import CompactHead, HarmGate, assemble_steered

    require_new(out)
    (number, ceiling, record), folder = _chosen_threshold(threshold), resolve_model(edited)
    own_head, own_gate = CompactHead.load(head), HarmGate.load(gate)
    config = read_decoding(decoding, head=own_head).config(
        attributes=own_head.attributes, categories=own_gate.categories, threshold=number, ceiling=ceiling
    )
    assemble_steered(checkpoint=folder, head=head, gate=gate, config=config, threshold=record, out=out)
    if as_json:
        say_json({"steered": str(out), "decoding": config.model_dump(by_alias=True)})
        return
    say(f"{len(config.attributes)} attributes, {len(config.categories)} categories, threshold {number:g}: {out}")


def _chosen_threshold(text: str | None) -> "tuple[float, float, ThresholdChoice | None]":
    """Return the threshold, its ceiling, and the record that it is read from."""
    from prosocial.evaluation.gate.threshold_choice import ThresholdChoice

    try:
        number = 0.5 if text is None else float(text)
    except ValueError:
        choice = ThresholdChoice.read(Path(str(text)))
        return choice.harm_threshold, choice.threshold_ceiling, choice
    if not 0.0 <= number <= 1.0:
        raise InputError(f"--threshold should be a number in [0, 1], or the path of a calibration.json, found {text}")
    return number, number, None
