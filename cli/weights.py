"""The commands `inspect` and `vector`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from prosocial.core import InputError
from prosocial.core.files import require_outside
from prosocial.editing import resolve_model
from prosocial.editing.edits.inspection import describe_folder

from .output import result_console, say_json

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def inspect(
    path: Annotated[str, typer.Argument(help="Any folder or file of prosocial; or a Hub id (headers only).")],
    as_json: Json = False,
    fingerprint: Annotated[bool, typer.Option(help="Read all weights and print their fingerprint.")] = True,
) -> None:
    """Describe a folder or file: what it is, its size, edits, names, limits, stages, verdicts.

    Signatures and manifests are listed, not checked.
    """
    from prosocial.recipes.inspection.describing import inspect_artefact

    print_data(inspect_artefact(path, fingerprint=fingerprint), as_json, title=path)


def _list_methods(wanted: bool) -> None:
    if not wanted:
        return
    from prosocial.editing.vectors.methods.registry import METHODS

    table = Table("method", "settings", "what it does", title="prosocial vector --method NAME --set KEY=VALUE")
    for name, method in METHODS.items():
        table.add_row(name, escape("\n".join(method.settings)), escape(method.summary))
    result_console().print(table)
    raise typer.Exit


def parse_settings(settings: list[str]) -> dict[str, object]:
    """Return the parameters of a method from NAME=VALUE texts; values that are numbers become floats.

    Raises:
        InputError: a text is not NAME=VALUE, or a name is repeated.

    Examples:
        >>> parse_settings(["density=0.2", "utility=benign"])
        {'density': 0.2, 'utility': 'benign'}
    """
    parsed: dict[str, object] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not name or not equals or name in parsed:
            raise InputError(f"--set should be NAME=VALUE, each name once, found {setting!r}")
        try:
            parsed[name] = float(text)
        except ValueError:
            parsed[name] = text
    return parsed


def vector(
    harmful: Annotated[
        list[str],
        typer.Option(help="A harmful checkpoint, LoRA adapter or saved vector: a folder or a Hub id; may repeat."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new vector folder.")],
    base: Annotated[str | None, typer.Option(help="The base checkpoint; not needed for saved vectors.")] = None,
    method: Annotated[str, typer.Option(help="The harm-vector method; --methods lists them.")] = "plain",
    setting: Annotated[
        list[str], typer.Option("--set", help="NAME=VALUE, a parameter of the method such as density=0.2; may repeat.")
    ] = [],  # noqa: B006 - typer only reads it
    density: Annotated[float | None, typer.Option(help="Same as --set density=...")] = None,
    utility: Annotated[Path | None, typer.Option(help="Same as --set utility=...")] = None,
    as_json: Json = False,
    methods: Annotated[
        bool, typer.Option("--methods", callback=_list_methods, is_eager=True, help="List the methods and stop.")
    ] = False,
) -> None:
    """Compute a harm vector from a base and harmful checkpoints or LoRA adapters, or transform a saved one."""
    from prosocial.editing import make_vector
    from prosocial.editing.vectors.methods.registry import choose_method

    given: dict[str, object] = {"density": density, "utility": utility}
    parameters = {name: value for name, value in given.items() if value is not None} | parse_settings(setting)
    choose_method(method, parameters)
    base_folder = None if base is None else resolve_model(base)
    harmful_folders = [resolve_model(each) for each in harmful]
    require_outside(out, [*harmful_folders, *([] if base_folder is None else [base_folder])])
    make_vector(harmful_folders, out, base=base_folder, method=method, **parameters)
    print_data(describe_folder(out, fingerprint=False), as_json, title=f"wrote {out}")


def print_data(data: dict[str, Any], as_json: bool, *, title: str) -> None:
    """Print plain data as one JSON object or as a table."""
    if as_json:
        say_json(data)
        return
    table = Table(title=title, show_header=False)
    for key, value in data.items():
        table.add_row(key, _text(value))
    result_console().print(table)


def _text(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list):
        return "\n".join(map(_text, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_text(item)}" for key, item in value.items()) or "none"
    return str(value)
